"""Connect to a running Darkroom, and exit with a message where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, NoReturn

from receiver.cli.completion import LOCAL
from receiver.cli.console import FAILED, MISUSED, UNREACHABLE, fail, say
from receiver.cli.options import flag, option
from receiver.cli.token import api_token

if TYPE_CHECKING:
    from receiver.client import ApiError, Darkroom

Json = Annotated[bool, flag("Print JSON, and nothing else, on standard output.", "--json")]
_connect_by = partial(option, panel="Connection")


@dataclass(frozen=True)
class Connection:
    """The options that say which Darkroom to use."""

    url: Annotated[
        str, _connect_by("Where Darkroom runs.", "URL", "--url", envvar="DARKROOM_URL", show_default=True)
    ] = LOCAL
    token: Annotated[
        str | None,
        _connect_by(
            "An API token, if it needs one; or DARKROOM_TOKEN_FILE names a file with it.",
            "TOKEN",
            "--token",
            envvar="DARKROOM_TOKEN",
        ),
    ] = None

    @contextmanager
    def open(self) -> Iterator[Darkroom]:
        """Open a client; turn its errors into a message and an exit code."""
        # Here and not above, because `darkroom --help` needs no HTTP.
        from receiver.client import ApiError, ClientError, Darkroom, Unreachable

        try:
            token = api_token(self.token)
        except ValueError as error:
            fail(str(error), MISUSED)
        try:
            with Darkroom(self.url, token, on_hint=cache(_hint)) as darkroom:
                yield darkroom
        except Unreachable as error:
            demo = ", or try it with `darkroom demo`" if self.url == LOCAL else " there"
            fix = (
                f"Start it with `darkroom serve`{demo}. If it runs elsewhere, set DARKROOM_URL or give --url."
            )
            fail(f"{error}\n{fix}", UNREACHABLE)
        except ApiError as error:
            _exit_refused(error)
        except BrokenPipeError:
            raise
        except (ClientError, OSError) as error:
            fail(str(error))


def _hint(text: str) -> None:
    say(f"Hint: {text}", "yellow")


def described(error: ApiError) -> str:
    """Return why the service refused a request, a line for each field."""
    if not error.faults:
        return error.detail
    return "\n".join(f"{fault.get('field')}: {fault.get('message')}" for fault in error.faults)


def _exit_refused(error: ApiError) -> NoReturn:
    if error.status in {401, 403}:
        fail(f"{error.detail}\nGive a token with --token, or set DARKROOM_TOKEN or DARKROOM_TOKEN_FILE.")
    fail(described(error), MISUSED if error.faults else FAILED)
