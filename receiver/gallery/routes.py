"""List the routes of the gallery, and connect its pages to what they show."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.routing import Route

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


@dataclass(frozen=True, slots=True)
class Gallery:
    """All pages: their frame, and their routes, which `/openapi.json` does not have: they are no API."""

    frame: PageHandler
    routes: Sequence[Route]


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
    gateways = list(api.submitter.context.gateways)
    signing_in = SigningIn(frame)
    detail = Detail(frame, search, ledger, notifications, archive, bucket, clock)
    by_file = FindByFile(frame, search, max_upload)
    jobs = JobsPages(frame, ledger, search, notifications, api.retrier, counts, api.queued, clock)
    submit = SubmitPage(frame, api.submitter, ledger, search, facets, api.queued)
    return Gallery(
        frame,
        [
            # No authentication: the sign-in page needs them.
            Route("/static/{name}", assets.serve, methods=["GET"]),
            frame.open("GET /sign-in", signing_in.ask),
            frame.open("POST /sign-in", signing_in.sign_in),
            frame.route("POST /sign-out", signing_in.sign_out),
            frame.route("GET /", Grid(frame, search, facets, clock).show),
            frame.admitted("GET /outputs/{id}", detail.show, scope="read"),
            frame.route("GET /find", by_file.show),
            frame.admitted("POST /find", by_file.take, scope="read"),
            frame.route("GET /jobs", jobs.list),
            frame.route("GET /jobs/{id}", jobs.show),
            frame.route("GET /jobs/{id}/resubmit", jobs.ask, scope="submit"),
            frame.route("POST /jobs/{id}/retry", jobs.retry, scope="submit"),
            frame.route("GET /submit", submit.ask, scope="submit"),
            frame.route("POST /submit", submit.submit, scope="submit"),
            frame.route("GET /status", StatusPage(frame, ledger, api.circuits, health, gateways, clock).show),
            frame.route("GET /usage", UsagePage(frame, usage, facets, counts, clock).show),
        ],
    )
