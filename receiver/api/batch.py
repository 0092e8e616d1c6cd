"""Serve `POST /v1/jobs/batch`: submit many jobs in one request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from receiver.api.responses import json_response
from receiver.errors import IdempotencyConflict, InvalidRequest, LedgerIncomplete, RequestError
from receiver.http.admission import Admission
from receiver.http.limits import read_body
from receiver.http.middleware import details
from receiver.http.routing import Answer, Body, Operation
from receiver.jobs.submit import Submitter
from receiver.schemas.batch import Batch, BatchResult
from receiver.schemas.job import Job
from receiver.schemas.problem import FieldError, Problem
from receiver.schemas.requests import MAX_BATCH, BatchBody, BatchJob, parse_body
from storage.errors import Conflict
from storage.ledger.job_writer import Accepted, NewJob
from storage.ledger.ledger import Ledger
from storage.models import Job as KnownJob
from storage.search.search import Search

MAX_BODY = 8 * 1024 * 1024

Judged = NewJob | RequestError


@dataclass(frozen=True, slots=True)
class BatchRoutes:
    """The route of batches."""

    ledger: Ledger
    search: Search
    submitter: Submitter
    admission: Admission
    queued: Callable[[], None]
    """Called when jobs were created, which are due at once."""
    links: str
    """What the URLs of images begin with."""

    @Operation(
        "POST /v1/jobs/batch",
        "submit_batch",
        scope="submit",
        body=Body(BatchBody, f"Up to {MAX_BATCH} jobs, in {MAX_BODY} bytes at most."),
        answers={200: Answer(Batch, "What became of each job; look at each `problem`.")},
        errors=(LedgerIncomplete,),
    )
    async def submit(self, request: Request) -> Response:
        """Submit up to 100 jobs, each judged by itself.

        Those that are accepted are stored in the ledger together, by the time of the response. A job that is
        refused says nothing about the others: its result has the `problem`. With `dry_run` the jobs are only
        judged, so that a client can send all of its jobs or none; a result has a `job` then only if it was
        created earlier with the same idempotency key.
        """
        content = await read_body(
            request.headers, request.receive, MAX_BODY, within_s=self.admission.limits.body_timeout_s
        )
        return await run_in_threadpool(self._submit, content, request.state.request_id)

    def _submit(self, content: bytes, request_id: str) -> Response:
        body = parse_body(BatchBody, content)
        judged = [self._judge(row, request_id) for row in body.rows]
        good = [one for one in judged if isinstance(one, NewJob)]
        found = iter(self._known(good) if body.dry_run else self._accept(good))
        results = [next(found) if isinstance(one, NewJob) else one for one in judged]
        return json_response(Batch(results=tuple(self._shown(results))))

    def _judge(self, row: BatchJob | InvalidRequest, request_id: str) -> Judged:
        if isinstance(row, InvalidRequest):
            return row
        try:
            return self.submitter.judge(
                row.gateway,
                row.request(),
                ignore_unsupported=row.unsupported == "ignore",
                idempotency_key=row.idempotency_key,
                notify_url=row.notify_url,
                request_id=request_id,
            )
        except InvalidRequest as error:
            return error

    def _accept(self, new: Sequence[NewJob]) -> Sequence[Accepted | RequestError]:
        found = self.submitter.add(new)
        if any(not isinstance(one, RequestError) and one[1] for one in found):
            self.queued()
        return found

    def _known(self, new: Sequence[NewJob]) -> list[Accepted | RequestError | None]:
        return [_found(one) for one in self.ledger.known_jobs(new)]

    def _shown(self, results: Sequence[Accepted | RequestError | None]) -> list[BatchResult]:
        jobs = [one[0] for one in results if isinstance(one, tuple)]
        outputs = self.search.outputs_of([job.id for job in jobs])
        shown: list[BatchResult] = []
        for one in results:
            problem = _problem(one) if isinstance(one, RequestError) else None
            job, created = one if isinstance(one, tuple) else (None, False)
            view = job and Job.of(job, outputs[job.id], self.links, warnings=self.submitter.warnings(job))
            shown.append(BatchResult.trusted(None, created=created, job=view, problem=problem))
        return shown


def _found(one: KnownJob | Conflict | None) -> Accepted | RequestError | None:
    if isinstance(one, Conflict):
        return IdempotencyConflict(str(one))
    return None if one is None else (one, False)


def _problem(error: RequestError) -> Problem:
    faults = error.faults if isinstance(error, InvalidRequest) else ()
    named = tuple(FieldError(**fault) for fault in faults)
    return Problem(**details(error.status, error.code, str(error)), faults=named)
