"""The pages beside the pictures, connected: jobs, the submit form, books and usage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from receiver.gallery.books_page import BooksPage
from receiver.gallery.frame import Frame
from receiver.gallery.jobs_pages import JobsPages
from receiver.gallery.pages import Part
from receiver.gallery.submit_page import SubmitPage
from receiver.gallery.usage_page import UsagePage
from receiver.health import Health
from receiver.remembered import Remembered
from storage.records import Books

if TYPE_CHECKING:
    from receiver.api import Api
    from receiver.memory import Memory

BOOKS_S = 0.5
"""How old the counts beside the words for a status may be; `jobs.js` looks no sooner after an event."""


def looking_after(frame: Frame, memory: Memory, api: Api, health: Health) -> list[Part]:
    """Make these pages from the parts of the service."""
    books = Remembered(memory.ledger.books, BOOKS_S)
    gateways = list(api.submitter.gateways)
    return [
        _jobs(frame, memory, api, books),
        SubmitPage(frame, api.submitter, memory.ledger, memory.search, memory.facets, api.queued),
        BooksPage(frame, memory.ledger, memory.circuits, health, gateways, api.clock),
        UsagePage(frame, memory.usage, memory.facets, books, api.clock),
    ]


def _jobs(frame: Frame, memory: Memory, api: Api, books: Callable[[], Mapping[str, Books]]) -> JobsPages:
    return JobsPages(
        frame=frame,
        ledger=memory.ledger,
        search=memory.search,
        notifications=memory.notifications,
        retrier=api.retrier,
        books=books,
        queued=api.queued,
        clock=api.clock,
    )
