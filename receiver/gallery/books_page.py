"""The books, and how the gateways, the bucket and the ledger are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response
from starlette.routing import Route

from receiver.gallery.frame import Frame, Visit
from receiver.health import Health
from receiver.views import books_view, gateways_view
from storage.books import total
from storage.circuits import Circuits
from storage.ledger import Ledger
from storage.records import Clock, Status


@dataclass(frozen=True, slots=True)
class BooksPage:
    """The page `/books`."""

    frame: Frame
    ledger: Ledger
    circuits: Circuits
    health: Health
    gateways: Sequence[str]
    """The gateways that are configured."""
    clock: Clock

    def routes(self) -> list[Route]:
        """The routes of this part."""
        return [self.frame.route("GET /books", self.show)]

    def show(self, visit: Visit) -> Response:
        """Show whether every job is in one place, and who is not well."""
        pages, now = self.ledger.books(), self.clock()
        states = gateways_view(sorted(self.gateways), self.circuits.every(), now)
        return visit.page(
            "books.html",
            books=books_view(total(list(pages.values())), pages, now),
            statuses=[status.value for status in Status],
            gateways=states["gateways"],
            image_hosts=states["image_hosts"],
            health=self.health.ask(),
        )
