"""The gallery: its pages and its files, as routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.routing import Route
from starlette.types import ExceptionHandler

from receiver.gallery.page import PageHandler


class Part(Protocol):
    """Some of the gallery's pages."""

    def routes(self) -> list[Route]:
        """Return the routes of this page."""
        ...


@dataclass(frozen=True, slots=True)
class Gallery:
    """All pages together."""

    frame: PageHandler
    parts: Sequence[Part]

    def routes(self) -> list[Route]:
        """Every route of the gallery. They are no part of the API, so `/openapi.json` does not have them."""
        return [route for part in self.parts for route in part.routes()]

    def handlers(self, handlers: Mapping[Any, ExceptionHandler]) -> dict[Any, ExceptionHandler]:
        """The handlers of errors, with pages for people; see `PageHandler.handlers`."""
        return self.frame.handlers(handlers)
