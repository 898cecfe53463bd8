"""The release of the installed distribution."""


def release(otherwise: str) -> str:
    """Return the version of the distribution, or `otherwise` if it is not installed."""
    import importlib.metadata  # not needed by most commands, which shall start fast

    try:
        return importlib.metadata.version("anamnesis")
    except importlib.metadata.PackageNotFoundError:
        return otherwise
