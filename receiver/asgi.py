"""Build the ASGI application from the routes of a role."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import ExceptionHandler

from receiver.http.middleware import RequestMiddleware
from receiver.http.routing import Served
from receiver.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from receiver.thumbnails.cache import Thumbnails

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


class Part(Protocol):
    """Something that serves routes."""

    def routes(self) -> list[Served]:
        """Return the routes of this part."""


def routes_of(parts: Sequence[Part]) -> list[Served]:
    """Return the routes of several parts."""
    return [route for part in parts for route in part.routes()]


@dataclass(frozen=True, slots=True)
class Web:
    """What a role serves."""

    routes: Sequence[BaseRoute]
    error_handlers: Mapping[Any, ExceptionHandler]
    thumbnails: Thumbnails | None = None
    """To be closed when the service stops."""

    def app(self, metrics: Metrics, lifespan: Lifespan) -> Starlette:
        """Build the Starlette application."""
        app = Starlette(
            routes=list(self.routes),
            middleware=[Middleware(RequestMiddleware, metrics=metrics)],
            exception_handlers=dict(self.error_handlers),
            lifespan=lifespan,
        )
        # A redirect would swallow callbacks: senders do not follow one.
        app.router.redirect_slashes = False
        return app
