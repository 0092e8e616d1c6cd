"""The grid: what was made, newest first."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import Response
from starlette.routing import Route

from receiver.gallery.frame import Frame, Visit
from storage.records import Clock
from storage.search import Search, Wanted


@dataclass(frozen=True, slots=True)
class Grid:
    """The page `/`."""

    frame: Frame
    search: Search
    clock: Clock

    def routes(self) -> list[Route]:
        """The routes of this part."""
        return [self.frame.route("GET /", self.show)]

    def show(self, visit: Visit) -> Response:
        """Show a page of outputs."""
        page = self.search.outputs(Wanted(), limit=60)
        return visit.page("grid.html", found=page.rows)
