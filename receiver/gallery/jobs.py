"""Serve the job pages: list, detail, retry, resubmit and cancel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams
from starlette.responses import RedirectResponse, Response

from receiver.api.jobs import Api
from receiver.api.query_params import JobQuery
from receiver.errors import InvalidRequest, NeedsResubmit, NotCancellable, NotRetryable
from receiver.gallery import advice, search_box
from receiver.gallery.page import PageRequest
from receiver.http.query import read_query
from receiver.jobs.retry import SAID_NO
from receiver.schemas.job import proof, shortfall, timeline
from storage.ledger.job_counts import total
from storage.ledger.transitions import REOPENS
from storage.models import Delivery, Job, JobCounts, Output, Status
from storage.paging import Page

A_PAGE = 50
FILTERS = ("q", "gateway", "code", "status", "cursor")
STEPS = (Status.QUEUED, Status.SUBMITTING, Status.RUNNING, Status.READY)
"""The statuses before a terminal one, in order."""


@dataclass(frozen=True, slots=True)
class JobsPages:
    """The pages `/jobs` and `/jobs/{id}`."""

    api: Api
    counts: Callable[[], Mapping[str, JobCounts]]
    """Job counts, cached for a moment: every page shows them."""

    def list(self, visit: PageRequest) -> Response:
        """List jobs by status, newest first."""
        given = {name: visit.given(name) or "" for name in FILTERS}
        asked = {name: value for name, value in given.items() if value}
        faults: Sequence[Mapping[str, str]] = ()
        page: Page[Job] = Page([], None)
        hints: Sequence[str] = ()
        try:
            query = read_query(JobQuery, QueryParams({**asked, "limit": str(A_PAGE)}))
            wanted = query.wanted(self.api.clock())
            page = self.api.search.jobs(wanted, limit=A_PAGE, cursor=query.cursor)
            hints = self.api.hints(query.q, wanted, page)
        except InvalidRequest as error:
            faults = error.faults
        counts = self.counts()
        images = self.api.search.outputs_of([job.id for job in page.rows])
        lacking = (job_id for job_id, made in images.items() if any(one.missing_since for one in made))
        missing = frozenset(lacking)
        return visit.page(
            "jobs.html",
            status=422 if faults else 200,
            found=page.rows,
            images=images,
            missing=missing,
            next_cursor=page.next_cursor,
            given=given,
            filtered=bool(asked),
            faults=faults,
            hints=hints,
            counts=_counts(counts, given["gateway"]),
            gateways=sorted(counts),
            may_retry=visit.may("submit"),
            can_ask=lambda job: _can_ask(job, missing=job.id in missing),
            REOPENS=REOPENS,
            shortfall=shortfall,
            advice=advice.advice,
        )

    def show(self, visit: PageRequest) -> Response:
        """Show a job with its timeline."""
        return self._page(visit, _id(visit))

    def ask(self, visit: PageRequest) -> Response:
        """Ask for confirmation before a job is resubmitted, since that may be charged again."""
        job = self.api.ledger.job(_id(visit))
        if refused := _not_again(job, self.api.ledger.outputs(job.id)):
            return self._page(visit, job.id, refused=refused, status=NotRetryable.status)
        return visit.page("resubmit.html", job=job)

    def retry(self, visit: PageRequest) -> Response:
        """Retry a job: poll for its result again, or with `resubmit` send it again."""
        job_id = _id(visit)
        try:
            self.api.retrier.retry(job_id, resubmit=visit.form.get("resubmit") == "yes")
        except (NotRetryable, NeedsResubmit) as error:
            return self._page(visit, job_id, refused=str(error), status=error.status)
        self.api.queued()
        return RedirectResponse(f"/jobs/{job_id}", 303)

    def cancel(self, visit: PageRequest) -> Response:
        """Cancel a job."""
        job_id = _id(visit)
        try:
            self.api.canceller.cancel(job_id)
        except NotCancellable as error:
            return self._page(visit, job_id, refused=str(error), status=error.status)
        return RedirectResponse(f"/jobs/{job_id}", 303)

    def _page(self, visit: PageRequest, job_id: str, *, refused: str = "", status: int = 200) -> Response:
        job = self.api.ledger.job(job_id)
        outputs, deliveries = self.api.ledger.outputs(job_id), self.api.search.deliveries(job_id)
        events = timeline(job, deliveries, outputs, self.api.notifications.of_job(job_id))
        missing = [output for output in outputs if output.missing_since is not None]
        return visit.page(
            "job.html",
            status=status,
            job=job,
            outputs=outputs,
            events=events,
            steps=_steps(job),
            state=advice.STATES[job.status],
            missing=missing,
            advice=advice.advice(job.error) if job.error else "",
            proof=proof(events, job.found_by),
            refused=refused,
            shortfall=shortfall(job),
            warnings=self.api.submitter.warnings(job),
            may_ask=visit.may("submit") and _can_ask(job, deliveries, missing=bool(missing)),
            tags=search_box.tagged(job.request.tags),
            may_resubmit=visit.may("submit") and not _not_again(job, outputs),
            may_cancel=visit.may("submit") and self.api.canceller.can_cancel(job),
        )


def _id(visit: PageRequest) -> str:
    return str(visit.request.path_params["id"])


def _counts(counts: Mapping[str, JobCounts], gateway: str) -> dict[str, int]:
    """Return the number of jobs by status; under the empty key all of them."""
    page = total([page for name, page in counts.items() if gateway in ("", name)])
    return {"": sum(page.counts.values()), **{status.value: page.counts[status] for status in Status}}


def _can_ask(job: Job, deliveries: Sequence[Delivery] = (), *, missing: bool) -> bool:
    """Return whether asking the gateway again may help; the retrier decides.

    `missing`: whether archived images of the job are.
    """
    if job.status is Status.ARCHIVED and not missing:
        return False
    known = job.gateway_job_id is not None or bool(deliveries)
    askable = Status.RUNNING in REOPENS.get(job.status, ())
    return askable and known and (job.error is None or job.error.code not in SAID_NO)


def _not_again(job: Job, outputs: Sequence[Output]) -> str:
    """Return why a job may not be resubmitted; empty if it may."""
    if Status.QUEUED not in REOPENS.get(job.status, ()):
        return f"The job is {job.status}; only one that failed or was cancelled can be sent again."
    archived = any(output.missing_since is None for output in outputs)
    return "Some of its images are archived, and a new submission would make others." if archived else ""


def _steps(job: Job) -> list[dict[str, Any]]:
    """Return the steps of a job, each with its state (`done`, `now` or `ahead`) and when it was reached."""
    last = job.status if job.status.terminal else Status.ARCHIVED
    way = (*STEPS, last)
    here = way.index(job.status)
    steps = []
    for place, status in enumerate(way):
        at = job.moved_at(status)
        # A job may fail before it came to every step, and a retry may take it back.
        done = place < here and (at is not None or not job.status.terminal)
        state = "now" if place == here else "done" if done else "ahead"
        steps.append({"status": status, "state": state, "at": at if state != "ahead" else None})
    return steps
