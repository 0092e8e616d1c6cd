"""The JSON API: submit, find, and look after jobs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from pydantic import StringConstraints
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from receiver.api.query_params import JobQuery, OutputQuery, WaitQuery
from receiver.api.subscriptions import Subscriptions
from receiver.errors import (
    IdempotencyConflict,
    NeedsResubmit,
    NoSuchThing,
    NotRetryable,
    TooManyWaiting,
    UnknownGateway,
    UnsupportedParameter,
)
from receiver.http.admission import Admission
from receiver.http.limits import read_body
from receiver.http.query import NoQuery
from receiver.http.routing import Answer, Body, Header, Operation, Served, guarded
from receiver.jobs.retry import Retrier
from receiver.jobs.submit import Submitter
from receiver.schemas import responses
from receiver.schemas.requests import RetryBody, SubmitBody, read_retry, read_submit
from receiver.schemas.views import gateways_view, job_view, output_view, status_view, timeline
from storage.ledger.circuits import Circuits
from storage.ledger.job_counts import total
from storage.ledger.ledger import Ledger
from storage.ledger.notifications import Notifications
from storage.models import Clock
from storage.paging import Page
from storage.search.search import Search, SearchHit

MAX_BODY = 1024 * 1024

IDEMPOTENCY_KEY = Header(
    "Idempotency-Key",
    "A word of yours for this request. The same request again under the same key is the same job.",
    Annotated[str, StringConstraints(min_length=1, max_length=255)],
)
LINK = Header("Link", 'The next page, with `rel="next"`; absent on the last one.', always=False)

JOB_AT = Header("Location", "Where the job is shown.")

SUBMIT = Operation(
    "POST /v1/jobs",
    "submit_job",
    scope="submit",
    query=NoQuery,
    headers=(IDEMPOTENCY_KEY,),
    body=Body(SubmitBody, f"What is asked for, in {MAX_BODY} bytes at most."),
    answers={
        202: Answer(responses.Job, "Taken: it is in the ledger.", (JOB_AT,)),
        200: Answer(responses.Job, "The job that came before under this Idempotency-Key.", (JOB_AT,)),
    },
    errors=(UnknownGateway, UnsupportedParameter, IdempotencyConflict),
)
JOBS = Operation(
    "GET /v1/jobs",
    "list_jobs",
    scope="read",
    query=JobQuery,
    answers={200: Answer(responses.JobPage, "A page of jobs.", (LINK,))},
    errors=(NoSuchThing,),
)
JOB = Operation(
    "GET /v1/jobs/{id}",
    "show_job",
    scope="read",
    path={"id": responses.JobId},
    query=WaitQuery,
    answers={200: Answer(responses.Job, "The job, with its timeline.")},
    errors=(TooManyWaiting,),
)
RETRY = Operation(
    "POST /v1/jobs/{id}/retry",
    "retry_job",
    scope="submit",
    path={"id": responses.JobId},
    query=NoQuery,
    body=Body(RetryBody, "How; it may be left out.", needed=False),
    answers={200: Answer(responses.Job, "The job, at work again.")},
    errors=(NotRetryable, NeedsResubmit),
)
OUTPUTS = Operation(
    "GET /v1/outputs",
    "list_outputs",
    scope="read",
    query=OutputQuery,
    answers={200: Answer(responses.OutputPage, "A page of outputs.", (LINK,))},
    errors=(NoSuchThing,),
)
OUTPUT = Operation(
    "GET /v1/outputs/{id}",
    "show_output",
    scope="read",
    path={"id": responses.OutputId},
    query=NoQuery,
    answers={200: Answer(responses.Output, "The output, with its job.")},
)
STATUS = Operation(
    "GET /v1/status",
    "show_status",
    scope="read",
    query=NoQuery,
    answers={200: Answer(responses.ServiceStatus, "Job counts, in total and by gateway.")},
)
GATEWAYS = Operation(
    "GET /v1/gateways",
    "show_gateways",
    scope="read",
    query=NoQuery,
    answers={200: Answer(responses.Gateways, "The gateways.")},
)


@dataclass(frozen=True, slots=True)
class Api:
    """The routes under `/v1`."""

    ledger: Ledger
    search: Search
    circuits: Circuits
    notifications: Notifications
    submitter: Submitter
    retrier: Retrier
    admission: Admission
    waiters: Subscriptions
    queued: Callable[[], None]
    """Called when a job was taken in."""
    clock: Clock

    def routes(self) -> list[Served]:
        """The routes of this part."""
        return [
            guarded(SUBMIT, self.submit, self.admission),
            guarded(JOBS, self.jobs, self.admission),
            guarded(JOB, self.job, self.admission),
            guarded(RETRY, self.retry, self.admission),
            guarded(OUTPUTS, self.outputs, self.admission),
            guarded(OUTPUT, self.output, self.admission),
            guarded(STATUS, self.status, self.admission),
            guarded(GATEWAYS, self.gateways, self.admission),
        ]

    async def submit(self, request: Request, _query: NoQuery) -> Response:
        """Take a job in."""
        body = read_submit(await self._body(request))
        key = IDEMPOTENCY_KEY.read(request.headers)
        job, new = await run_in_threadpool(
            self.submitter.accept,
            body.gateway,
            body.request(),
            ignore_unsupported=body.unsupported == "ignore",
            idempotency_key=key,
            notify_url=body.notify_url,
            request_id=request.state.request_id,
        )
        if new:
            self.queued()
        view = await run_in_threadpool(self._job_view, job.id)
        return JSONResponse(view, 202 if new else 200, {"location": f"/v1/jobs/{job.id}"})

    async def jobs(self, request: Request, query: JobQuery) -> Response:
        """List jobs, newest first."""
        page = await run_in_threadpool(
            self.search.jobs, query.wanted(self.clock()), limit=query.limit, cursor=query.cursor
        )
        ids = await run_in_threadpool(self.search.output_ids, [job.id for job in page.rows])
        return listed(request, "jobs", [job_view(job, ids[job.id]) for job in page.rows], page)

    async def job(self, request: Request, query: WaitQuery) -> Response:
        """Show one job; with `?wait=` seconds, once it is terminal or that time has passed."""
        job_id = request.path_params["id"]
        if query.wait:
            await self.waiters.until(request, self._finished, job_id, within_s=query.wait)
        return JSONResponse(await run_in_threadpool(self._job_view, job_id))

    async def retry(self, request: Request, _query: NoQuery) -> Response:
        """Put a failed or partial job back to work."""
        body = read_retry(await self._body(request))
        job_id = str(request.path_params["id"])
        await run_in_threadpool(self.retrier.retry, job_id, resubmit=body.resubmit)
        self.queued()
        return JSONResponse(await run_in_threadpool(self._job_view, job_id))

    async def outputs(self, request: Request, query: OutputQuery) -> Response:
        """Search outputs, those of the newest job first."""
        page = await run_in_threadpool(
            self.search.outputs, query.wanted(self.clock()), limit=query.limit, cursor=query.cursor
        )
        return listed(request, "outputs", [output_view(found) for found in page.rows], page)

    async def output(self, request: Request, _query: NoQuery) -> Response:
        """Show one output, with everything that made it."""
        found = await self._find(request)
        view = output_view(found)
        view["job"] = job_view(found.job, [found.output.id])
        return JSONResponse(view)

    async def status(self, _request: Request, _query: NoQuery) -> Response:
        """Show whether every accepted job is accounted for, and how many are in each state."""
        pages = await run_in_threadpool(self.ledger.job_counts)
        return JSONResponse(status_view(total(list(pages.values())), pages, self.clock()))

    async def gateways(self, _request: Request, _query: NoQuery) -> Response:
        """Show how the gateways and their image hosts are."""
        circuits = await run_in_threadpool(self.circuits.every)
        names = sorted(self.submitter.gateways)
        return JSONResponse(gateways_view(names, circuits, self.clock()))

    async def _body(self, request: Request) -> bytes:
        return await read_body(request, MAX_BODY, within_s=self.admission.limits.body_timeout_s)

    def _finished(self, job_id: str) -> bool:
        return self.ledger.job(job_id).status.terminal

    def _job_view(self, job_id: str) -> responses.Job:
        job = self.ledger.job(job_id)
        outputs = self.ledger.outputs(job_id)
        view = job_view(job, [output.id for output in outputs])
        view["timeline"] = timeline(
            job, self.search.deliveries(job_id), outputs, self.notifications.of_job(job_id)
        )
        return view

    async def _find(self, request: Request) -> SearchHit:
        return await run_in_threadpool(self.search.output, request.path_params["id"])


def listed(request: Request, name: str, views: Sequence[Mapping[str, Any]], page: Page[Any]) -> Response:
    """A page of a list, with a link to the next one."""
    headers: Mapping[str, str] = {}
    if page.next_cursor:
        following = [(key, value) for key, value in request.query_params.multi_items() if key != "cursor"]
        query = urlencode([*following, ("cursor", page.next_cursor)])
        headers = {"link": f'<{request.url.path}?{query}>; rel="next"'}
    return JSONResponse({name: views, "next_cursor": page.next_cursor}, headers=headers)
