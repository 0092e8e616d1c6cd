"""Return the version of Darkroom that is installed."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """Return the version; `unknown` if Darkroom is run from its source and not installed."""
    try:
        return version("darkroom")
    except PackageNotFoundError:
        return "unknown"
