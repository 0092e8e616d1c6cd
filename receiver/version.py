"""Return the version of Darkroom that is installed."""


def installed_version() -> str:
    """Return the version; `unknown` if Darkroom is run from its source and not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("darkroom")
    except PackageNotFoundError:
        return "unknown"
