"""Take a job in, send it to its gateway, and record what the gateway answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from time import sleep
from typing import Any, TypeVar

import httpx
import structlog
import uuid_utils

from receiver.callbacks.tokens import CallbackUrls
from receiver.errors import (
    EndpointForbidden,
    GarbledAnswer,
    GatewayError,
    GatewayRefused,
    GatewayUnavailable,
    IdempotencyConflict,
    InvalidRequest,
    OutcomeUnknown,
    RateLimited,
    SubmittedBefore,
    UnknownGateway,
    UnsupportedParameter,
)
from receiver.gateways.base import Gateway, Submission
from receiver.gateways.client import BUSY_MS, GatewayClient, not_configured
from receiver.jobs.circuit_breaker import CircuitBreaker
from receiver.notifications.url_policy import NotifyPolicy
from receiver.redaction import Redactor
from receiver.schedule import Timing
from receiver.telemetry.metrics import Metrics
from storage.errors import Conflict, Crowded, LeaseLost, Unavailable
from storage.ledger.ledger import Ledger
from storage.models import Attempt, Clock, Job, JobError, JobRequest, Status

RENEWED_MS = 12 * 3600 * 1000
"""After so long a wait for an operator a submission's callback URL is made anew."""

UNCERTAIN = frozenset(kind.code for kind in (OutcomeUnknown, GarbledAnswer, SubmittedBefore))
"""Error codes of a submission after which the gateway may still have accepted it."""

NOTE_WAITS_S = (0.1, 0.5, 2.0)

Noted = TypeVar("Noted")

log = structlog.get_logger("darkroom.submit")


@dataclass(frozen=True, slots=True)
class Submitter:
    """The first step of a job's life. Thread-safe. `key_faults` is `Keys.faults` of the archive's keys."""

    ledger: Ledger
    gateways: Mapping[str, Gateway]
    sender: GatewayClient
    urls: CallbackUrls
    breaker: CircuitBreaker
    redactor: Redactor
    timing: Timing
    clock: Clock
    metrics: Metrics
    notify: NotifyPolicy
    key_faults: Callable[[str, JobRequest], Sequence[Mapping[str, str]]]

    def accept(
        self,
        gateway_name: str,
        request: JobRequest,
        *,
        ignore_unsupported: bool = False,
        idempotency_key: str | None = None,
        notify_url: str | None = None,
        request_id: str | None = None,
    ) -> tuple[Job, bool]:
        """Check a job and put it in the ledger. Answers the job, and whether it is new.

        Raises UnknownGateway, UnsupportedParameter or InvalidRequest, each naming every field that is
        wrong, and IdempotencyConflict.
        """
        gateway = self.gateways.get(gateway_name)
        if gateway is None:
            known = ", ".join(sorted(self.gateways)) or "none"
            fault = {"field": "gateway", "message": f"not configured here; these are: {known}"}
            raise UnknownGateway([fault])
        request = _expressible(gateway, request, ignore=ignore_unsupported)
        if faults := [*gateway.faults(request), *self.key_faults(gateway_name, request)]:
            raise InvalidRequest(faults)
        try:
            self.notify.check(notify_url or "")
        except EndpointForbidden as error:
            raise InvalidRequest([{"field": "notify_url", "message": str(error)}]) from error
        try:
            job, new = self.ledger.add_job(
                str(uuid_utils.uuid7()),
                gateway_name,
                request,
                idempotency_key=idempotency_key,
                notify_url=notify_url,
                notify_default=self.notify.default,
                request_id=request_id,
            )
        except Conflict as error:
            raise IdempotencyConflict(str(error)) from error
        log.info("accepted", job=job.id, gateway=job.gateway, new=new)
        return job, new

    def send(self, job: Job, worker: str) -> Job:
        """Send a queued job. A refusal fails it; anything passing puts it back in the queue."""
        gateway = self.gateways.get(job.gateway)
        if gateway is None:
            return self.ledger.postpone(job, worker, due_in_ms=60_000, error=not_configured(job))
        if (wait_ms := self.breaker.sending_waits_ms(gateway.name)) > 0:
            return self.ledger.postpone(job, worker, due_in_ms=wait_ms, counts_as_attempt=False)
        if perhaps_taken(job) and self.clock() - job.began_at > self.timing.replay * 1000:
            return self._give_up(job, worker)
        with self.sender.reserve(gateway.name) as free, suppress(Crowded):
            if free:
                return self._send(job, worker, gateway)
        self.breaker.not_sent(gateway.name)
        return self.ledger.postpone(job, worker, due_in_ms=BUSY_MS, counts_as_attempt=False)

    def recover(self, job: Job, worker: str) -> Job:
        """Go on with a submission whose outcome nobody recorded."""
        gateway = self.gateways.get(job.gateway)
        if job.gateway_job_id is not None:
            # Kept by a worker that had lost its lease when the answer came.
            return self.ledger.move(job, Status.RUNNING, worker, keep_lease=True)
        taken = job.error is not None and job.error.code == SubmittedBefore.code
        if gateway is not None and gateway.idempotent and not taken:
            lost = Attempt.once("send", OutcomeUnknown.code, "Its answer was never recorded.", self.clock())
            return self.ledger.move(job, Status.QUEUED, worker, keep_lease=True, attempts=[lost])
        return self._wait_or_give_up(job, worker, job.error)

    def _send(self, job: Job, worker: str, gateway: Gateway) -> Job:
        if not sent_before(job):
            # Its callback URL lives, and its day begins, when it is first sent: it may have waited for long.
            job = replace(job, submission_at=self.clock())
        url = self.urls.make(job)
        request = gateway.submit_request(job, url)
        # In the ledger before it is on the wire: after a crash we know that it may have been sent.
        job = self.ledger.move(
            job,
            Status.SUBMITTING,
            worker,
            keep_lease=True,
            at_most=self.sender.limits[gateway.name],
            callback_expected=url is not None,
            sent=self.redactor.value(_body(request)),
            submission_at=job.began_at,
            error=None,
        )
        try:
            submission = self._exchange(gateway, request)
        except GatewayError as error:
            log.warning("submission failed", gateway=job.gateway, code=error.code, why=str(error))
            self.metrics.count("darkroom_submissions_total", gateway=gateway.name, outcome=error.code)
            failed, sent = error, job
            self._firmly(lambda: self.breaker.gateway_failed(gateway.name, "send", failed))
            return self._firmly(lambda: self._not_taken(sent, worker, gateway, failed))
        self.metrics.count("darkroom_submissions_total", gateway=gateway.name, outcome="accepted")
        job = self._taken(job, worker, submission)
        self.breaker.gateway_answered(gateway.name, "send")
        return job

    def _exchange(self, gateway: Gateway, request: httpx.Request) -> Submission:
        with self.metrics.timed("darkroom_gateway_request_seconds", gateway=gateway.name, call="submit"):
            response = self.sender.send(request)
        try:
            return gateway.read_submission(response)
        except GatewayUnavailable as error:
            if gateway.idempotent:
                raise
            # A 5xx does not say that the job was not taken.
            raise OutcomeUnknown(str(error), request_id=error.request_id) from error

    def _taken(self, job: Job, worker: str, submission: Submission) -> Job:
        log.info("submitted", gateway=job.gateway, gateway_job=submission.gateway_job_id)
        due_in = self.timing.poll_due(0, callback_expected=job.callback_expected)
        told = f"{job.gateway} took it as {submission.gateway_job_id}."
        attempt = Attempt.once("send", "taken", self.redactor.text(told), self.clock())

        def note() -> Job:
            return self.ledger.move(
                job,
                Status.RUNNING,
                worker,
                due_in_ms=int(due_in * 1000),
                attempts=[attempt],
                gateway_job_id=submission.gateway_job_id,
                gateway_request_id=submission.request_id,
            )

        try:
            return self._firmly(note)
        except LeaseLost:
            # Another worker goes on with the job, and could not ask for this answer again.
            self._firmly(
                lambda: self.ledger.note_submission(job, submission.gateway_job_id, submission.request_id)
            )
            raise
        except Conflict:
            error = JobError(
                "gateway_job_taken",
                f"{job.gateway} answered with the id of another job of ours, {submission.gateway_job_id}.",
                "gateway",
            )
            return self.ledger.move(job, Status.FAILED, worker, error=error)

    def _firmly(self, note: Callable[[], Noted]) -> Noted:
        """Try harder than usual to write down what a gateway answered: it cannot be asked for it again."""
        for wait_s in NOTE_WAITS_S:
            try:
                return note()
            except Unavailable as error:
                log.warning("ledger does not answer; trying again", why=str(error), wait_s=wait_s)
                sleep(wait_s)
        return note()

    def _not_taken(self, job: Job, worker: str, gateway: Gateway, error: GatewayError) -> Job:
        details = self.redactor.value(error.details) if error.details else None
        reason = JobError(error.code, self.redactor.text(str(error)), error.at_fault, details)
        attempt = Attempt.once("send", error.code, reason.message, self.clock())
        if isinstance(error, GatewayRefused):
            return self.ledger.move(job, Status.FAILED, worker, error=reason, attempts=[attempt])
        unknown = isinstance(error, OutcomeUnknown | GarbledAnswer) and not gateway.idempotent
        if unknown or isinstance(error, SubmittedBefore):
            return self._wait_or_give_up(job, worker, reason, attempt)
        # What only an operator can mend is waited for, as long as it takes.
        passing = error.at_fault != "operator"
        if passing and self.clock() - job.began_at > self.timing.no_answer * 1000:
            return self.ledger.move(job, Status.FAILED, worker, error=reason, attempts=[attempt])
        due_in_ms = max(self._backoff_ms(job, error), self.breaker.sending_waits_ms(gateway.name))
        return self.ledger.move(
            job,
            Status.QUEUED,
            worker,
            due_in_ms=due_in_ms,
            error=reason,
            attempts=[attempt],
            submission_at=self._began_at(job, passing=passing),
        )

    def _began_at(self, job: Job, *, passing: bool) -> int:
        """When the life of this submission's callback URL begins: anew for one that had to wait for long.

        A gateway that refuses our key or wants credits has not taken it, so its next try may have another
        URL; the old one would run out while it waits. Not so if an earlier try may have been taken.
        """
        now = self.clock()
        waited = not passing and now - job.began_at > RENEWED_MS
        return now if waited and not perhaps_taken(job) else job.began_at

    def _backoff_ms(self, job: Job, error: GatewayError) -> int:
        """How long this job waits by its own schedule; the end of a pause is not its own."""
        if error.at_fault == "operator":
            return 0
        wait = self.timing.backoff(job.attempts)
        if isinstance(error, RateLimited):
            wait = max(wait, self.timing.later(error.retry_after_s))
        return int(wait * 1000)

    def _wait_or_give_up(
        self, job: Job, worker: str, reason: JobError | None, attempt: Attempt | None = None
    ) -> Job:
        """Never send twice what may have been taken: wait for its callback, and then fail."""
        since = job.moved_at(Status.SUBMITTING) or job.created_at
        most_ms = int(self.timing.unconfirmed * 1000)
        # Never longer, though the clock may have been set back since.
        left_ms = min(since + most_ms - self.clock(), most_ms)
        attempts = [attempt] if attempt else []
        if left_ms > 0:
            return self.ledger.postpone(job, worker, due_in_ms=left_ms, error=reason, attempts=attempts)
        return self._give_up(job, worker, attempts)

    def _give_up(self, job: Job, worker: str, attempts: Sequence[Attempt] = ()) -> Job:
        message = (
            f"{job.gateway} never said whether it took the job. It was not sent again, because that "
            "could have been charged twice; look into the gateway's own list of jobs."
        )
        log.error("submission unconfirmed", gateway=job.gateway)
        error = JobError("submission_unconfirmed", message, "gateway")
        return self.ledger.move(job, Status.FAILED, worker, error=error, attempts=attempts)


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
        raise UnsupportedParameter(faults)
    # The record shows both that it was asked for and that it was dropped.
    return replace(request, ignored=tuple(sorted(unsupported)))


def _body(request: httpx.Request) -> Any:
    return json.loads(request.content) if request.content else None
