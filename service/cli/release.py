"""Which release this is."""


def release() -> str:
    """Return the version of the installed distribution, or words where it is not installed."""
    import importlib.metadata

    try:
        return importlib.metadata.version("anamnesis")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
