"""The JSON API: submit, find, and look after jobs and outputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, StringConstraints
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from receiver import errors
from receiver.api.health import Check, failures
from receiver.api.query_params import JobQuery, OutputQuery, WaitQuery
from receiver.api.responses import LINK, json_response, page_response
from receiver.api.subscriptions import Subscriptions
from receiver.http.admission import Admission
from receiver.http.limits import read_body
from receiver.http.routing import Answer, Body, Header, Operation
from receiver.jobs.cancel import Canceller
from receiver.jobs.retry import Retrier
from receiver.jobs.submit import Submitter
from receiver.query.hints import gateways_in, name_hints, word_hints
from receiver.schemas.job import Job, JobPage, OutputShown, TimelineEvent, timeline
from receiver.schemas.output import Output, OutputPage
from receiver.schemas.requests import RetryBody, SubmitBody, parse_body
from receiver.schemas.status import Gateways, ServiceStatus
from receiver.schemas.types import JobName, OutputName
from storage.archive.store_facts import StoreFacts
from storage.ledger.circuits import Circuits
from storage.ledger.job_counts import total
from storage.ledger.ledger import Ledger
from storage.ledger.notifications import Notifications
from storage.models import Clock
from storage.models import Job as KnownJob
from storage.models import Output as KnownOutput
from storage.paging import Page
from storage.search.filters import SearchFilter
from storage.search.ids import Ids
from storage.search.search import Search

MAX_BODY = 1024 * 1024

IDEMPOTENCY_KEY = Header(
    "Idempotency-Key",
    "Your own name for this request: sent again with the same key, it returns the same job.",
    Annotated[str, StringConstraints(min_length=1, max_length=255), Field(examples=["autumn-0001"])],
)
JOB_AT = Header("Location", "The path of the job.")


@dataclass(frozen=True, slots=True)
class Api:
    """The routes under `/v1`."""

    ledger: Ledger
    search: Search
    ids: Ids
    circuits: Circuits
    notifications: Notifications
    submitter: Submitter
    retrier: Retrier
    canceller: Canceller
    admission: Admission
    waiters: Subscriptions
    store_facts: Callable[[], StoreFacts]
    queued: Callable[[], None]
    """Called when a job is due at once: created, or put back to work."""
    checks: Mapping[str, Check]
    """What `/v1/status` has as `problems`, where they fail."""
    links: str
    """What the URLs of images begin with."""
    clock: Clock

    @Operation(
        "POST /v1/jobs",
        "submit_job",
        scope="submit",
        headers=(IDEMPOTENCY_KEY,),
        body=Body(SubmitBody, f"What to generate, in {MAX_BODY} bytes at most."),
        answers={
            202: Answer(Job, "The job was accepted, and is stored in the ledger.", (JOB_AT,)),
            200: Answer(Job, "The job that was created earlier with this Idempotency-Key.", (JOB_AT,)),
        },
        errors=(
            errors.UnknownGateway,
            errors.UnknownModel,
            errors.UnsupportedParameter,
            errors.IdempotencyConflict,
            errors.LedgerIncomplete,
        ),
    )
    async def submit(self, request: Request) -> Response:
        """Submit a job."""
        return await run_in_threadpool(self._submit, request, await self._body(request))

    def _submit(self, request: Request, content: bytes) -> Response:
        body = parse_body(SubmitBody, content)
        key = IDEMPOTENCY_KEY.read(request.headers)
        job_id, new = self.accept(body, key, request)
        return json_response(self._job(job_id), 202 if new else 200, {"location": f"/v1/jobs/{job_id}"})

    def accept(self, body: SubmitBody, key: str | None, request: Request) -> tuple[str, bool]:
        """Create a job, or find the one with this idempotency key; return its id, and whether it is new."""
        judged = self.submitter.judge(
            body.gateway,
            body.request(),
            ignore_unsupported=body.unsupported == "ignore",
            idempotency_key=key,
            notify_url=body.notify_url,
            request_id=request.state.request_id,
        )
        job, new = self.submitter.accept(judged)
        if new:
            self.queued()
        return job.id, new

    @Operation(
        "GET /v1/jobs",
        "list_jobs",
        answers={200: Answer(JobPage, "A page of jobs.", (LINK,))},
        errors=(errors.NoSuchThing, errors.AmbiguousId),
    )
    def jobs(self, request: Request, query: JobQuery) -> Response:
        """List jobs, newest first."""
        wanted = query.wanted(self.clock())
        page = self.search.jobs(wanted, limit=query.limit, cursor=query.cursor)
        hints = self.hints(query.q, wanted, page)
        outputs = self.search.outputs_of([job.id for job in page.rows])
        jobs = tuple(self._shown(job, outputs[job.id]) for job in page.rows)
        return page_response(request, JobPage(jobs=jobs, next_cursor=page.next_cursor, hints=hints))

    @Operation(
        "GET /v1/jobs/{id:id}",
        "show_job",
        path={"id": JobName},
        answers={200: Answer(Job, "The job, with its timeline.")},
        errors=(errors.TooManyWaiting,),
    )
    async def job(self, request: Request, query: WaitQuery) -> Response:
        """Show one job; with `?wait=` seconds, once it is finished or that time has passed."""
        job_id = request.path_params["id"]
        if query.wait:
            await self.waiters.until(request, self._finished, job_id, within_s=query.wait)
        return json_response(await run_in_threadpool(self._job, job_id))

    @Operation(
        "POST /v1/jobs/{id}/retry",
        "retry_job",
        scope="submit",
        path={"id": JobName},
        body=Body(RetryBody, "Whether to submit it again; the body may be left out.", needed=False),
        answers={200: Answer(Job, "The job, which continues.")},
        errors=(errors.NotRetryable, errors.NeedsResubmit),
    )
    async def retry(self, request: Request) -> Response:
        """Put a job back to work that failed, is partial, was cancelled, or lacks archived images."""
        body = parse_body(RetryBody, await self._body(request) or b"{}")
        job_id = str(request.path_params["id"])
        return await run_in_threadpool(self._retry, job_id, resubmit=body.resubmit)

    def _retry(self, job_id: str, *, resubmit: bool) -> Response:
        self.retrier.retry(job_id, resubmit=resubmit)
        self.queued()
        return json_response(self._job(job_id))

    @Operation(
        "POST /v1/jobs/{id}/cancel",
        "cancel_job",
        scope="submit",
        path={"id": JobName},
        answers={200: Answer(Job, "The job: cancelled, or running until its gateway says that it is.")},
        errors=(errors.NotCancellable,),
    )
    def cancel(self, request: Request) -> Response:
        """Cancel a job that was not sent yet, which costs nothing; or at its gateway, if that has a way to.

        It is refused otherwise, and while it is not known whether the gateway has the job.
        """
        job = self.canceller.cancel(request.path_params["id"])
        self.queued()
        return json_response(self._job(job.id))

    @Operation(
        "GET /v1/outputs",
        "list_outputs",
        answers={200: Answer(OutputPage, "A page of outputs.", (LINK,))},
        errors=(errors.NoSuchThing, errors.AmbiguousId),
    )
    def outputs(self, request: Request, query: OutputQuery) -> Response:
        """Search outputs, those of the newest job first."""
        wanted = query.wanted(self.clock())
        page = self.search.outputs(wanted, limit=query.limit, cursor=query.cursor)
        hints = self.hints(query.q, wanted, page)
        outputs = tuple(Output.of(found.output, found.job, self.links) for found in page.rows)
        return page_response(request, OutputPage(outputs=outputs, next_cursor=page.next_cursor, hints=hints))

    @Operation(
        "GET /v1/outputs/{id}",
        "show_output",
        path={"id": OutputName},
        answers={200: Answer(OutputShown, "The output, with its job.")},
    )
    def output(self, request: Request) -> Response:
        """Show one output, with everything that made it."""
        found = self.search.output(request.path_params["id"])
        job = self._shown(found.job, [found.output])
        return json_response(OutputShown.of(found.output, found.job, self.links, job=job))

    @Operation(
        "GET /v1/status",
        "show_status",
        answers={200: Answer(ServiceStatus, "Job counts, in total and by gateway; the store.")},
    )
    def status(self, _request: Request) -> Response:
        """Show whether every accepted job is accounted for, and how many are in each state."""
        pages = self.ledger.job_counts()
        counts, now = total(list(pages.values())), self.clock()
        problems = failures(self.checks)
        return json_response(ServiceStatus.of_gateways(counts, pages, now, self.store_facts(), problems))

    @Operation("GET /v1/gateways", "show_gateways", answers={200: Answer(Gateways, "The gateways.")})
    def gateways(self, _request: Request) -> Response:
        """Show the state of the gateways and their image hosts."""
        circuits = self.circuits.every()
        names = sorted(self.submitter.context.gateways)
        return json_response(Gateways.of(names, circuits, self.clock()))

    def hints(self, text: str | None, wanted: SearchFilter, page: Page[Any]) -> tuple[str, ...]:
        """Return what of a search may be mistyped."""
        adapters = self.submitter.context.gateways
        known = set(adapters)
        if not gateways_in(wanted) <= known:
            known |= self.ledger.job_counts().keys()
        # What was found has a known model, though perhaps no adapter lists it.
        models = [] if page.rows else [model for gateway in adapters.values() for model in gateway.models]
        return (*word_hints(text or ""), *name_hints(wanted, known, models))

    async def _body(self, request: Request) -> bytes:
        return await read_body(
            request.headers, request.receive, MAX_BODY, within_s=self.admission.limits.body_timeout_s
        )

    def _finished(self, job_id: str) -> bool:
        return self.ledger.job(job_id).status.terminal

    def _job(self, job_id: str) -> Job:
        job = self.ledger.job(job_id)
        outputs = self.ledger.outputs(job_id)
        deliveries, notified = self.search.deliveries(job_id), self.notifications.of_job(job_id)
        return self._shown(job, outputs, timeline(job, deliveries, outputs, notified))

    def _shown(
        self, job: KnownJob, outputs: Sequence[KnownOutput], events: Sequence[TimelineEvent] = ()
    ) -> Job:
        return Job.of(job, outputs, self.links, events, self.submitter.warnings(job))
