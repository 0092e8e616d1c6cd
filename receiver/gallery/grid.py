"""Serve the gallery grid: outputs newest first, filtered by a search."""

from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from receiver.api.jobs import Api
from receiver.errors import NoSuchThing
from receiver.gallery import search_box
from receiver.gallery.page import PageRequest
from receiver.query.language import GUIDE
from storage.errors import NotFound
from storage.paging import Page
from storage.search.facets import Facets
from storage.search.filters import SearchFilter
from storage.search.search import SearchHit

A_PAGE = 60
"""How many pictures a page has: many rows on a wide screen, and few enough to come at once."""

MORE = "x-darkroom-more"
"""The header with which our script asks for the pictures of a page without what is around them."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The page `/`."""

    api: Api
    facets: Facets

    def show(self, visit: PageRequest) -> Response:
        """Show a page of outputs, or what is wrong with the query."""
        q = visit.given("q") or ""
        wanted, faults = search_box.read_asked(q, self.api.clock())
        if wanted is None:
            empty: dict[str, Any] = {"found": Page([], None), "counts": None, "facets": [], "newer": None}
            empty["hints"] = ()
            # 200, for it is the page of the gallery that was asked for; a browser logs anything else.
            return visit.page("grid.html", q=q, faults=faults, **empty, **_asked(q))
        cursor = visit.given("cursor")
        page = self._page(wanted, cursor)
        if MORE in visit.request.headers:
            return visit.page("cards.html", q=q, found=page)
        counts = self.facets.read(wanted)
        return visit.page(
            "grid.html",
            q=q,
            found=page,
            faults=[],
            hints=self.api.hints(q, wanted, page),
            counts=counts,
            facets=search_box.facets(counts, q),
            newer=self._newer(wanted, page) if cursor else None,
            **_asked(q),
        )

    def _page(self, wanted: SearchFilter, cursor: str | None) -> Page[SearchHit]:
        try:
            return self.api.search.outputs(wanted, limit=A_PAGE, cursor=cursor)
        except (ValueError, NotFound):
            raise NoSuchThing("There is no such page of pictures; begin again with the newest.") from None

    def _newer(self, wanted: SearchFilter, page: Page[SearchHit]) -> str | None:
        """Return the cursor of the page before; empty if that is the first one, None if there is none."""
        if not page.rows:
            return ""
        before = self.api.search.newer_ids(wanted, page.rows[0].output.id, limit=A_PAGE + 1)
        if not before:
            return None
        return before[A_PAGE] if len(before) > A_PAGE else ""


def _asked(q: str) -> dict[str, Any]:
    return {"conditions": search_box.conditions(q), "guide": GUIDE}
