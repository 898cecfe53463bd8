"""The release of the installed distribution."""


def release() -> str:
    """Return the version of the distribution, or a text if it is not installed."""
    import importlib.metadata

    try:
        return importlib.metadata.version("anamnesis")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
