"""Serve everything below a path, such as `/photos` behind a reverse proxy that has other things beside it."""

import re
from collections.abc import Iterable

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receiver.errors import SettingsError

SAFE_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")
"""Needs no escape in a URL, a cookie or a page. Empty: no prefix."""
_TO_US = {b"location": b"/", b"link": b"</"}
"""Headers of responses, and how they begin if they lead to another page of ours."""


def check_prefix(prefix: str, routes: Iterable[Route]) -> None:
    """Raise SettingsError if this path cannot be before all others."""
    ours = {route.path.split("/")[1] for route in routes} - {""}
    if SAFE_PATH.fullmatch(prefix) is None:
        why = "may have letters, digits, dots, dashes, underscores and tildes only"
    elif prefix and prefix.split("/")[1] in ours:
        why = "begins like a path of Darkroom's own, so that nobody could tell the two apart"
    else:
        return
    raise SettingsError(
        f"The path {prefix} of DARKROOM_PUBLIC_URL {why}. Take another one; or, if your proxy takes it away "
        "and only callbacks come through it, set DARKROOM_PATH_PREFIX=/."
    )


def without(prefix: str, path: str) -> str:
    """Return a path without the prefix, which it may have or not."""
    return path[len(prefix) :] or "/" if path == prefix or path.startswith(f"{prefix}/") else path


class PathPrefix:
    """Middleware that takes the prefix from paths, if the proxy has not, and puts it before those it returns.

    So requests that reach the service past the proxy, as a sidecar's do, are understood as well.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, by the ASGI protocol."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def respond(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [self._prefixed(*header) for header in message["headers"]]
            await send(message)

        await self._app({**scope, "path": without(self._prefix, scope["path"])}, receive, respond)

    def _prefixed(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        start = _TO_US.get(name)
        if start is None or not value.startswith(start):
            return name, value
        return name, start[:-1] + self._prefix.encode() + value[len(start) - 1 :]
