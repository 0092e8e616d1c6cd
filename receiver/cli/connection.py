"""How the commands reach a running Darkroom, and what they say when they do not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from receiver.cli.console import FAILED, MISUSED, UNREACHABLE, fail

if TYPE_CHECKING:
    from receiver.client import ApiError, Darkroom

_PANEL = "Connection"

Url = Annotated[
    str,
    typer.Option(
        "--url", envvar="DARKROOM_URL", metavar="URL", help="Where Darkroom is.", rich_help_panel=_PANEL
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="DARKROOM_TOKEN",
        metavar="TOKEN",
        help="Its API token, if it asks for one.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
LOCAL = "http://127.0.0.1:8321"


@contextmanager
def connected(url: str, token: str | None) -> Iterator[Darkroom]:
    """A client for the commands; what it raises ends the command with a message and an exit code."""
    # Here and not above, because `darkroom --help` needs no HTTP.
    from receiver.client import ApiError, ClientError, Darkroom, Unreachable

    try:
        with Darkroom(url, token) as darkroom:
            yield darkroom
    except Unreachable as error:
        fail(f"{error}\n{_hint(url)}", UNREACHABLE)
    except ApiError as error:
        _refused(error)
    except ClientError as error:
        fail(str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        fail(str(error))


def described(error: ApiError) -> str:
    """Why the service refused, with every fault."""
    if not error.faults:
        return error.detail
    return "\n".join(f"{fault.get('field')}: {fault.get('message')}" for fault in error.faults)


def _refused(error: ApiError) -> NoReturn:
    if error.status in {401, 403}:
        fail(f"{error.detail}\nGive the token with --token, or in the variable DARKROOM_TOKEN.")
    fail(described(error), MISUSED if error.faults else FAILED)


def _hint(url: str) -> str:
    elsewhere = "Is it running elsewhere? Set DARKROOM_URL, or give --url."
    if url == LOCAL:
        return f"Start it with `darkroom serve`, or try it with `darkroom demo`. {elsewhere}"
    return f"Start it there with `darkroom serve`. {elsewhere}"
