"""`darkroom version`: print the version that is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import typer


def version() -> None:
    """Print the version."""
    try:
        typer.echo(f"darkroom {installed('darkroom')}")
    except PackageNotFoundError:
        typer.echo("darkroom (run from its source, not installed)")
