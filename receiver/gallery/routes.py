"""Connect the pages of the gallery, and return their routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.routing import Route
from starlette.types import ExceptionHandler

from receiver.api.health import Health
from receiver.api.jobs import Api
from receiver.cache import TtlCache
from receiver.gallery.assets import Assets
from receiver.gallery.find_by_file import FindByFile
from receiver.gallery.grid import Grid
from receiver.gallery.jobs import JobsPages
from receiver.gallery.output import Detail
from receiver.gallery.page import PageHandler
from receiver.gallery.rendering import Rendering
from receiver.gallery.sign_in import SigningIn
from receiver.gallery.status import StatusPage
from receiver.gallery.submit import SubmitPage
from receiver.gallery.usage import UsagePage
from receiver.http.bucket_threads import BucketThreads
from storage.archive.archive import Archive
from storage.search.facets import Facets
from storage.search.usage import Usage

COUNTS_S = 0.5
"""How long job counts are cached; `jobs.js` reads them no sooner after an event."""


class Part(Protocol):
    """Some of the gallery's pages."""

    def routes(self) -> list[Route]:
        """Return the routes of this part."""
        ...


@dataclass(frozen=True, slots=True)
class Gallery:
    """All pages."""

    frame: PageHandler
    parts: Sequence[Part]

    def routes(self) -> list[Route]:
        """Return every route of the gallery. `/openapi.json` does not have them: they are no API."""
        return [route for part in self.parts for route in part.routes()]

    def handlers(self, handlers: Mapping[Any, ExceptionHandler]) -> dict[Any, ExceptionHandler]:
        """Return the handlers of errors, with pages for people; see `PageHandler.handlers`."""
        return self.frame.handlers(handlers)


def gallery(
    api: Api,
    facets: Facets,
    usage: Usage,
    archive: Archive,
    health: Health,
    bucket: BucketThreads,
    *,
    public_url: str | None,
    max_upload: int,
) -> Gallery:
    """Connect the pages to what the API has. `max_upload`: bytes of the largest file to find an image by."""
    assets = Assets()
    frame = PageHandler(api.admission, api.admission.sessions, Rendering(assets), public_url)
    ledger, search, notifications, clock = api.ledger, api.search, api.notifications, api.clock
    counts = TtlCache(ledger.job_counts, COUNTS_S)
    return Gallery(
        frame,
        [
            assets,
            SigningIn(frame),
            Grid(frame, search, facets, clock),
            Detail(frame, search, ledger, notifications, archive, bucket, clock),
            FindByFile(frame, search, max_upload),
            JobsPages(frame, ledger, search, notifications, api.retrier, counts, api.queued, clock),
            SubmitPage(frame, api.submitter, ledger, search, facets, api.queued),
            StatusPage(frame, ledger, api.circuits, health, list(api.submitter.context.gateways), clock),
            UsagePage(frame, usage, facets, counts, clock),
        ],
    )
