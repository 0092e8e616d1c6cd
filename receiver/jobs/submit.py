"""Accept a job, submit it to its gateway, and decide by the gateway's answer."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from time import sleep
from typing import TypeVar, cast

import httpx
import structlog
import uuid_utils

from receiver import errors
from receiver.callbacks.tokens import CallbackUrls
from receiver.gateways import model_names
from receiver.gateways.base import Gateway, Submission
from receiver.gateways.client import BUSY_MS, not_configured
from receiver.gateways.requests import sent
from receiver.jobs.context import JobContext, Outcome
from storage.errors import Conflict, Crowded, LeaseLost, Unavailable
from storage.ledger.job_writer import Accepted, Move, MoveOptions, NewJob, Postpone
from storage.ledger.ledger import Ledger
from storage.models import Attempt, Job, JobError, JobRequest, Status

RENEWED_MS = 12 * 3600 * 1000
"""After so long a wait for an operator a submission gets a new callback URL."""
UNCERTAIN = frozenset({errors.OutcomeUnknown.code, errors.GarbledAnswer.code, errors.SubmittedBefore.code})
"""Error codes of a submission after which the gateway may still have accepted it."""
INCOMPLETE_MS = 10_000
"""When a job is looked at again that is not sent because the ledger is incomplete."""
RETRY_AFTER_S = (0.1, 0.5, 2.0)
"""The waits before each retry of a write that notes a gateway's response to a submission."""

Written = TypeVar("Written")

log = structlog.get_logger("darkroom.submit")


@dataclass(frozen=True, slots=True)
class Answered:
    """The outcome of a request that the gateway cannot be asked to answer again: its write is retried."""

    job: Job
    """As it was when the request was sent, which is one move later than the worker knows."""
    outcome: Move | Postpone

    def write(self, ledger: Ledger, _before: Job, worker: str) -> Job:
        """Write it; if the lease is lost, keep the gateway's job id for the worker that has the job now."""
        job = self.job
        options = cast("MoveOptions", self.outcome.options)
        theirs, answer = options.get("gateway_job_id"), options.get("answer")
        try:
            return _retry(lambda: self.outcome.write(ledger, job, worker))
        except LeaseLost:
            if theirs is not None or answer is not None:
                request_id = options.get("gateway_request_id")
                url = options.get("poll_url")
                _retry(lambda: ledger.note_submission(job, theirs, request_id, answer, poll_url=url))
            raise
        except Conflict:
            if theirs is None:
                raise
            message = f"{job.gateway} answered with the id of another job of ours, {theirs}."
            error = JobError("gateway_job_taken", message, "gateway")
            return Move(Status.FAILED, error=error).write(ledger, job, worker)


def _retry(write: Callable[[], Written]) -> Written:
    for wait_s in RETRY_AFTER_S:
        try:
            return write()
        except Unavailable as error:
            log.warning("ledger does not answer; trying again", why=str(error), wait_s=wait_s)
            sleep(wait_s)
    return write()


@dataclass(frozen=True, slots=True)
class Submitter:
    """The first step of a job's life. Thread-safe. `key_faults` is `Keys.faults` of the archive's keys."""

    context: JobContext
    urls: CallbackUrls
    check_notify_url: Callable[[str], None]
    """Raises EndpointForbidden for a URL that may not be notified."""
    notify_default: str | None
    key_faults: Callable[[str, str, Mapping[str, str]], Sequence[Mapping[str, str]]]
    check_ledger: Callable[[], None]
    """Raises LedgerIncomplete if the ledger lacks jobs that were charged before."""

    def accept(self, new: NewJob) -> Accepted:
        """Put a judged job in the ledger; return it, and whether it is new.

        Raises IdempotencyConflict, and LedgerIncomplete as `add` does.
        """
        (found,) = self.add([new])
        if isinstance(found, errors.IdempotencyConflict):
            raise found
        return found

    def add(self, new: Sequence[NewJob]) -> list[Accepted | errors.IdempotencyConflict]:
        """Put judged jobs in the ledger, in one transaction; return the result of each.

        Raises LedgerIncomplete if the ledger lacks jobs that were charged before.
        """
        self.check_ledger()
        results: list[Accepted | errors.IdempotencyConflict] = []
        for found in self.context.ledger.add_jobs(new):
            if isinstance(found, Conflict):
                results.append(errors.IdempotencyConflict(str(found)))
                continue
            job, is_new = found
            log.info("accepted", job=job.id, gateway=job.gateway, new=is_new)
            results.append(found)
        return results

    def judge(
        self,
        gateway_name: str,
        request: JobRequest,
        *,
        ignore_unsupported: bool = False,
        idempotency_key: str | None = None,
        notify_url: str | None = None,
        request_id: str | None = None,
    ) -> NewJob:
        """Validate a job; return it as the ledger takes it.

        Raises UnknownGateway, UnknownModel, UnsupportedParameter or InvalidRequest, which name every fault.
        """
        gateway = self.context.gateways.get(gateway_name)
        if gateway is None:
            known = " or ".join(sorted(self.context.gateways)) or "none: set the API key of one"
            message = f"is not configured here; use {known}"
            raise errors.UnknownGateway([{"field": "gateway", "message": message}])
        request = replace(request, model=model_names.as_listed(gateway, request.model))
        if not ignore_unsupported:
            self._refuse_mistaken(gateway_name, request.model)
        request = _expressible(gateway, request, ignore=ignore_unsupported)
        if faults := [*gateway.faults(request), *self.key_faults(gateway_name, request.model, request.tags)]:
            raise errors.InvalidRequest(faults)
        try:
            self.check_notify_url(notify_url or "")
        except errors.EndpointForbidden as error:
            raise errors.InvalidRequest([{"field": "notify_url", "message": str(error)}]) from error
        return NewJob(
            str(uuid_utils.uuid7()),
            gateway_name,
            request,
            idempotency_key=idempotency_key,
            notify_url=notify_url,
            notify_default=self.notify_default,
            request_id=request_id,
        )

    def warnings(self, job: Job) -> tuple[str, ...]:
        """Return what may be wrong with a job's request, until its gateway has made images of it."""
        made = job.status in (Status.READY, Status.ARCHIVED, Status.PARTIAL)
        return () if made else model_names.warnings(self.context.gateways, job.gateway, job.request.model)

    def send(self, job: Job) -> Outcome:
        """Submit a queued job. A refusal fails it; after a passing error it is queued again."""
        gateway, breaker = self.context.gateways.get(job.gateway), self.context.breaker
        if gateway is None:
            return Postpone(60_000, error=not_configured(job))
        try:
            self.check_ledger()
        except errors.LedgerIncomplete as error:
            # It may have been sent since the backup that this ledger comes from.
            breaker.not_sent(gateway.name)
            reason = JobError("ledger_incomplete", str(error), "operator")
            return Postpone(INCOMPLETE_MS, counts_as_attempt=False, error=reason)
        if (wait_ms := breaker.sending_waits_ms(gateway.name)) > 0:
            return Postpone(wait_ms, counts_as_attempt=False)
        if perhaps_taken(job) and self._since(job.began_at) > self.context.timing.replay:
            return self._unconfirmed(job)
        with self.context.sender.reserve(gateway.name) as free, suppress(Crowded):
            if free:
                return self._send(job, gateway)
        breaker.not_sent(gateway.name)
        return Postpone(BUSY_MS, counts_as_attempt=False)

    def recover(self, job: Job) -> Outcome:
        """Go on with a submission whose answer was never recorded."""
        gateway = self.context.gateways.get(job.gateway)
        if job.gateway_job_id is not None:
            # Kept by a worker that had lost its lease when the answer came.
            return Move(Status.RUNNING, keep_lease=True)
        taken = job.error is not None and job.error.code == errors.SubmittedBefore.code
        if gateway is not None and gateway.idempotent and not taken:
            lost = self._attempt(errors.OutcomeUnknown.code, "Its answer was never recorded.")
            return Move(Status.QUEUED, keep_lease=True, attempts=[lost])
        return self._await_callback(job, job.error)

    def _refuse_mistaken(self, gateway: str, model: str) -> None:
        if why := model_names.mistaken(self.context.gateways, gateway, model):
            raise errors.UnknownModel([{"field": "model", "message": why}])

    def _send(self, job: Job, gateway: Gateway) -> Outcome:
        breaker = self.context.breaker
        if not sent_before(job):
            # Its callback URL lives, and its day begins, when it is first sent: it may have waited for long.
            job = replace(job, submission_at=self.context.clock())
        url = self.urls.make(job)
        request = gateway.submit_request(job, url)
        # In the ledger before it is on the wire, by the worker that holds the lease: after a crash we know
        # that it may have been sent.
        job = self.context.ledger.move(
            job,
            Status.SUBMITTING,
            job.leased_by or "",
            keep_lease=True,
            at_most=self.context.sender.limits[gateway.name],
            callback_expected=url is not None,
            sent=self.context.redactor.value(sent(request)),
            submission_at=job.began_at,
            error=None,
        )
        try:
            submission, body = self._exchange(gateway, request)
        except errors.GatewayError as error:
            log.warning("submission failed", gateway=job.gateway, code=error.code, why=str(error))
            self._count(gateway, error.code)
            failed = error
            _retry(lambda: breaker.gateway_failed(gateway.name, "send", failed))
            return Answered(job, _retry(lambda: self._not_taken(job, gateway, failed)))
        self._count(gateway, "accepted")
        with suppress(Unavailable):
            # The answer must be noted, whether or not its circuit could be closed.
            breaker.gateway_answered(gateway.name, "send")
        return Answered(job, self._taken(job, submission, body))

    def _exchange(self, gateway: Gateway, request: httpx.Request) -> tuple[Submission, bytes]:
        metrics = self.context.metrics
        with metrics.timed("darkroom_gateway_request_seconds", gateway=gateway.name, call="submit"):
            response = self.context.sender.send(request)
        try:
            return gateway.read_submission(response), response.content
        except errors.GatewayUnavailable as error:
            if gateway.idempotent:
                raise
            # A 5xx does not say that the job was not taken.
            raise errors.OutcomeUnknown(str(error), request_id=error.request_id) from error

    def _taken(self, job: Job, submission: Submission, body: bytes) -> Move:
        log.info("submitted", gateway=job.gateway, gateway_job=submission.gateway_job_id)
        due_in = self.context.timing.poll_due(0, callback_expected=job.callback_expected)
        said = f"Submitted; {job.gateway} calls it {submission.gateway_job_id}."
        if submission.gateway_job_id is None:
            said = f"Submitted; {job.gateway} gave no id for it."
        # A result in the answer is durable together with the move. It is read like a callback then.
        answer = self.context.answer(job, body) if submission.result is not None else None
        return Move(
            Status.RUNNING,
            due_in_ms=int(due_in * 1000),
            keep_lease=answer is not None,
            answer=answer,
            attempts=[self._attempt("taken", self.context.redactor.text(said))],
            gateway_job_id=submission.gateway_job_id,
            gateway_request_id=submission.request_id,
            poll_url=submission.poll_url,
        )

    def _not_taken(self, job: Job, gateway: Gateway, error: errors.GatewayError) -> Move | Postpone:
        redactor, timing = self.context.redactor, self.context.timing
        details = redactor.value(error.details) if error.details else None
        reason = JobError(error.code, redactor.text(str(error)), error.at_fault, details)
        attempt = self._attempt(error.code, reason.message)
        if isinstance(error, errors.GatewayRefused):
            return Move(Status.FAILED, error=reason, attempts=[attempt])
        unknown = isinstance(error, errors.OutcomeUnknown | errors.GarbledAnswer) and not gateway.idempotent
        if unknown or isinstance(error, errors.SubmittedBefore):
            return self._await_callback(job, reason, attempt)
        # For what only an operator can fix there is no limit.
        passing = error.at_fault != "operator"
        if passing and self._since(job.began_at) > timing.no_answer:
            return Move(Status.FAILED, error=reason, attempts=[attempt])
        return Move(
            Status.QUEUED,
            due_in_ms=max(self._backoff_ms(job, error), self.context.breaker.sending_waits_ms(gateway.name)),
            error=reason,
            attempts=[attempt],
            submission_at=self._began_at(job, passing=passing),
        )

    def _began_at(self, job: Job, *, passing: bool) -> int:
        """Return when the life of a submission's callback URL begins: now, if it waited long for an operator.

        The old URL would expire while it waits. A try that may have been taken keeps its URL.
        """
        now = self.context.clock()
        waited = not passing and now - job.began_at > RENEWED_MS
        return now if waited and not perhaps_taken(job) else job.began_at

    def _backoff_ms(self, job: Job, error: errors.GatewayError) -> int:
        """Return how long this job waits by its own schedule; the end of a pause is not its own."""
        if error.at_fault == "operator":
            return 0
        timing = self.context.timing
        wait = timing.backoff(job.attempts)
        if isinstance(error, errors.RateLimited):
            wait = max(wait, timing.later(error.retry_after_s))
        return int(wait * 1000)

    def _await_callback(
        self, job: Job, reason: JobError | None, attempt: Attempt | None = None
    ) -> Move | Postpone:
        """Never send again what may have been taken: wait for its callback, and fail after the deadline."""
        most_s = self.context.timing.unconfirmed
        # Never longer, though the clock may have been set back since.
        left_s = min(most_s - self._since(job.moved_at(Status.SUBMITTING) or job.created_at), most_s)
        attempts = [attempt] if attempt else []
        if left_s > 0:
            return Postpone(int(left_s * 1000), error=reason, attempts=attempts)
        return self._unconfirmed(job, attempts)

    def _unconfirmed(self, job: Job, attempts: Sequence[Attempt] = ()) -> Move:
        message = (
            f"{job.gateway} never said whether it accepted the job. It was not sent again, because that "
            "could have been charged twice; look into the gateway's own list of jobs."
        )
        log.error("submission unconfirmed", gateway=job.gateway)
        error = JobError("submission_unconfirmed", message, "gateway")
        return Move(Status.FAILED, error=error, attempts=attempts)

    def _since(self, then: int) -> float:
        return (self.context.clock() - then) / 1000

    def _attempt(self, code: str, message: str) -> Attempt:
        return Attempt.once("send", code, message, self.context.clock())

    def _count(self, gateway: Gateway, outcome: str) -> None:
        self.context.metrics.count("darkroom_submissions_total", gateway=gateway.name, outcome=outcome)


def sent_before(job: Job) -> bool:
    """Return whether this submission was sent before, by the order of its moves: clocks are set back."""
    since = takewhile(lambda status: not status.terminal, (status for status, _ in reversed(job.moves)))
    return Status.SUBMITTING in since


def perhaps_taken(job: Job) -> bool:
    """Return whether the gateway may have accepted this submission at a try whose response was lost."""
    since = takewhile(lambda tried: tried.step != "retry", reversed(job.attempt_log))
    return any(tried.step == "send" and tried.code in UNCERTAIN for tried in since)


def _expressible(gateway: Gateway, request: JobRequest, *, ignore: bool) -> JobRequest:
    unsupported = gateway.unsupported(request)
    if not unsupported:
        return request
    if not ignore:
        faults = [{"field": name, "message": reason} for name, reason in unsupported.items()]
        raise errors.UnsupportedParameter(faults)
    # The record shows both that it was asked for and that it was dropped.
    return replace(request, ignored=tuple(sorted(unsupported)))
