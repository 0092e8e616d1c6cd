"""Let pages of other origins use the API with a bearer token.

The protocol: https://fetch.spec.whatwg.org/#http-cors-protocol.
"""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE")
ASKED = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "Range",
    "X-Request-Id",
)
"""Headers that a request may have."""
TOLD = ("Content-Disposition", "Content-Range", "ETag", "Link", "Location", "Retry-After", "X-Request-Id")
"""Headers that a page may read."""
PREFLIGHT_S = 600
"""How long browsers may remember what is allowed."""


class Cors:
    """Middleware that allows these origins, under `/v1/` alone, and without cookies."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.encode() for origin in origins)
        self._shared = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=ASKED,
            expose_headers=TOLD,
            max_age=PREFLIGHT_S,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, by the ASGI protocol."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        if any(name == b"origin" and value in self._origins for name, value in headers):
            # A session is the gallery's own: no other page may act by it.
            scope = {**scope, "headers": [header for header in headers if header[0] != b"cookie"]}
        await self._shared(scope, receive, send)
