"""List the routes of the gallery, and connect its pages to what they show."""

from starlette.routing import Route

from receiver.api.health import Health
from receiver.api.jobs import Api
from receiver.api.notifications import NotificationRoutes
from receiver.cache import TtlCache
from receiver.gallery.assets import Assets
from receiver.gallery.find_by_file import FindByFile
from receiver.gallery.grid import Grid
from receiver.gallery.jobs import JobsPages
from receiver.gallery.notifications import NotificationsPage
from receiver.gallery.output import Detail
from receiver.gallery.page import PageHandler
from receiver.gallery.rendering import Rendering
from receiver.gallery.sign_in import SigningIn
from receiver.gallery.status import StatusPage
from receiver.gallery.submit import SubmitPage
from receiver.gallery.usage import UsagePage
from receiver.http.bucket_threads import BucketThreads
from receiver.missing_images import MissingImages
from storage.search.facets import Facets
from storage.search.usage import Usage

COUNTS_S = 0.5
"""How long job counts are cached; `jobs.js` reads them no sooner after an event."""


def gallery(
    api: Api,
    notifications: NotificationRoutes,
    facets: Facets,
    usage: Usage,
    missing: MissingImages,
    health: Health,
    bucket: BucketThreads,
    *,
    public_url: str | None,
    prefix: str,
    max_upload: int,
) -> tuple[PageHandler, list[Route]]:
    """Return the frame of all pages, and their routes, which `/openapi.json` does not have: they are no API.

    `prefix`: the path that links begin with. `max_upload`: bytes of the largest file to find an image by.
    """
    assets = Assets(prefix)
    frame = PageHandler(api.admission, api.admission.sessions, Rendering(assets, prefix), public_url, prefix)
    counts = TtlCache(api.ledger.job_counts, COUNTS_S)
    signing_in = SigningIn(frame)
    by_file = FindByFile(api.search, max_upload)
    jobs, job_id = JobsPages(api, counts), api.ids.job
    detail = Detail(api, missing, bucket)
    submit, notified = SubmitPage(api, facets), NotificationsPage(notifications)
    return frame, [
        # No authentication: the sign-in page needs them.
        Route("/static/{name}", assets.serve, methods=["GET"]),
        frame.open("GET /sign-in", signing_in.ask),
        frame.open("POST /sign-in", signing_in.sign_in),
        frame.route("POST /sign-out", signing_in.sign_out),
        frame.route("GET /", Grid(api, facets).show),
        frame.admitted("GET /outputs/{id}", detail.show, find=api.ids.output),
        frame.route("GET /find", by_file.show),
        frame.admitted("POST /find", by_file.take),
        frame.route("GET /jobs", jobs.list),
        frame.route("GET /jobs/{id}", jobs.show, find=job_id),
        frame.route("GET /jobs/{id}/resubmit", jobs.ask, scope="submit", find=job_id),
        frame.route("POST /jobs/{id}/retry", jobs.retry, scope="submit", find=job_id),
        frame.route("POST /jobs/{id}/cancel", jobs.cancel, scope="submit", find=job_id),
        frame.route("GET /submit", submit.ask, scope="submit"),
        frame.route("POST /submit", submit.submit, scope="submit"),
        frame.route("GET /notifications", notified.show),
        frame.route("POST /notifications/test", notified.test, scope="submit"),
        frame.route(
            "POST /notifications/{id}/replay", notified.replay, scope="submit", find=api.ids.notification
        ),
        frame.route("GET /status", StatusPage(api, health).show),
        frame.route("GET /usage", UsagePage(usage, facets, counts, api.clock).show),
    ]
