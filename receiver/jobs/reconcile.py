"""Find out how a job at a gateway is: from the callbacks that came, and by asking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from receiver.errors import (
    GarbledAnswer,
    GatewayError,
    GatewayUnavailable,
    MalformedCallback,
    RateLimited,
    UnknownGatewayJob,
)
from receiver.gateways.base import Completion, Gateway, State
from receiver.gateways.client import BUSY_MS, GatewayClient, not_configured
from receiver.jobs.bulk_poll import BulkPoller
from receiver.jobs.circuit_breaker import CircuitBreaker
from receiver.redaction import Redactor
from receiver.schedule import Timing
from receiver.telemetry.metrics import Metrics
from storage.ledger.ledger import Ledger
from storage.models import Attempt, Clock, Delivery, FoundBy, Job, JobError, JobResult, Status, Verdict

log = structlog.get_logger("darkroom.reconcile")

Confirm = Literal["auto", "always", "never"]
STILL_RUNNING = "It was asked, and is still at work."
HINT = "hint"
"""The effect of a callback that is believed only as far as to ask the gateway itself."""


@dataclass(frozen=True, slots=True)
class _News:
    """What a job's unapplied deliveries say, taken together."""

    effects: dict[str, str]
    gateway_job_id: str | None = None
    proven: tuple[str, Completion] | None = None
    """The delivery that may be believed as it is, and what it says."""
    unconfirmed: bool = False


@dataclass(frozen=True, slots=True)
class Reconciler:
    """The step between a gateway's taking a job and our knowing what became of it. Thread-safe."""

    ledger: Ledger
    gateways: Mapping[str, Gateway]
    sender: GatewayClient
    confirm: Mapping[str, Confirm]
    overview: BulkPoller
    breaker: CircuitBreaker
    redactor: Redactor
    timing: Timing
    clock: Clock
    metrics: Metrics

    def advance(self, job: Job, worker: str) -> Job:
        """Apply a running job's deliveries; ask its gateway where they do not settle it or none came."""
        gateway = self.gateways.get(job.gateway)
        if gateway is None:
            return self.ledger.postpone(
                job, worker, due_in_ms=60_000, ignore_callbacks=True, error=not_configured(job)
            )
        news = self._read(gateway, job)
        if job.gateway_job_id is None and news.gateway_job_id is not None:
            # The callback overtook the answer to our submission, or that answer was lost.
            job = replace(job, gateway_job_id=news.gateway_job_id)
        if news.proven is not None:
            delivery_id, completion = news.proven
            return self._decide(job, worker, gateway, completion, news.effects | {delivery_id: ""})
        if job.gateway_job_id is None:
            return self.ledger.postpone(
                job, worker, due_in_ms=0, counts_as_attempt=False, applied=news.effects
            )
        if job.status is Status.SUBMITTING:
            job = self.ledger.move(
                job, Status.RUNNING, worker, keep_lease=True, gateway_job_id=job.gateway_job_id
            )
        unconfirmed = news.unconfirmed or self._unconfirmed_before(job)
        at_once = unconfirmed or (job.reopened and job.attempts == 0)
        if not at_once and (wait_ms := self._due_in_ms(job)) > 0:
            return self.ledger.postpone(
                job, worker, due_in_ms=wait_ms, counts_as_attempt=False, applied=news.effects
            )
        return self._ask(job, worker, gateway, news.effects, unconfirmed=unconfirmed)

    def fresh(self, job: Job) -> Completion | None:
        """Ask the gateway for a ready job's images again, because their links have died."""
        gateway = self.gateways.get(job.gateway)
        if gateway is None or job.gateway_job_id is None:
            return None
        if self.breaker.asking_waits_ms(gateway.name) > 0:
            raise GatewayUnavailable(f"{gateway.name} is left alone for now.")
        with self.sender.reserve(gateway.name) as free:
            if not free:
                raise GatewayUnavailable(f"{gateway.name} is being asked too much already.")
            try:
                completion = self._poll(gateway, job)
            except GatewayError as error:
                self.breaker.gateway_failed(gateway.name, "ask", error)
                raise
        self.breaker.gateway_answered(gateway.name, "ask")
        return completion if completion.state is State.SUCCEEDED else None

    def _poll(self, gateway: Gateway, job: Job) -> Completion:
        assert job.gateway_job_id is not None
        try:
            with self.metrics.timed("darkroom_gateway_request_seconds", gateway=gateway.name, call="poll"):
                response = self.sender.send(gateway.poll_request(job.gateway_job_id))
            completion = gateway.read_poll(response)
            if completion.gateway_job_id not in {job.gateway_job_id, None}:
                raise GarbledAnswer(f"{gateway.name} answered with another job than the one asked about.")
        except GatewayError as error:
            self.metrics.count("darkroom_polls_total", gateway=gateway.name, outcome=error.code)
            raise
        self.metrics.count("darkroom_polls_total", gateway=gateway.name, outcome=completion.state)
        return completion

    def _read(self, gateway: Gateway, job: Job) -> _News:
        news = _News({})
        for delivery in self.ledger.pending_deliveries(job.id):
            try:
                completion = gateway.read_callback(delivery.body)
            except MalformedCallback:
                # It could be read when it came in, so an upgrade changed how; asking settles it.
                news = replace(news, effects=news.effects | {delivery.id: HINT}, unconfirmed=True)
                continue
            news = self._classify(news, job, delivery, completion)
        return news

    def _classify(self, news: _News, job: Job, delivery: Delivery, completion: Completion) -> _News:
        ours, theirs = job.gateway_job_id or news.gateway_job_id, completion.gateway_job_id
        strange = ours is not None and theirs not in {ours, None}
        if strange or (ours is None and theirs is not None and self.ledger.knows(job.gateway, theirs)):
            # It came before the answer to our submission, which then named another job; or before this one
            # turned out to be another job of ours.
            return replace(news, effects=news.effects | {delivery.id: "mismatch"})
        learned = ours or theirs
        if completion.state is State.RUNNING:
            return replace(news, effects=news.effects | {delivery.id: "progress"}, gateway_job_id=learned)
        if self._believable(job, delivery, completion):
            proven = news.proven or (delivery.id, completion)
            return replace(
                news, effects=news.effects | {delivery.id: "late"}, gateway_job_id=learned, proven=proven
            )
        return replace(
            news, effects=news.effects | {delivery.id: HINT}, gateway_job_id=learned, unconfirmed=True
        )

    def _believable(self, job: Job, delivery: Delivery, completion: Completion) -> bool:
        confirm = self.confirm[job.gateway]
        if completion.state is State.SUCCEEDED and not completion.images:
            return False
        return confirm == "never" or (confirm == "auto" and delivery.signature is Verdict.VALID)

    def _unconfirmed_before(self, job: Job) -> bool:
        # What came before this submission spoke of an earlier one.
        since = job.submission_at or 0
        return any(one.effect == HINT and one.received_at > since for one in self.ledger.deliveries(job.id))

    def _due_in_ms(self, job: Job) -> int:
        since, now = job.moved_at(Status.RUNNING) or job.created_at, self.clock()
        if since > now:
            # The clock was set back since, so nothing can be counted from then; that it is due must do.
            return 0
        due = self.timing.poll_due(job.attempts, callback_expected=job.callback_expected)
        return since + int(due * 1000) - now

    def _ask(
        self, job: Job, worker: str, gateway: Gateway, effects: dict[str, str], *, unconfirmed: bool
    ) -> Job:
        if (wait_ms := self.breaker.asking_waits_ms(gateway.name)) > 0:
            return self.ledger.postpone(
                job,
                worker,
                due_in_ms=wait_ms,
                counts_as_attempt=False,
                ignore_callbacks=True,
                applied=effects,
            )
        try:
            with self.sender.reserve(gateway.name) as free:
                if not free:
                    return self.ledger.postpone(
                        job, worker, due_in_ms=BUSY_MS, counts_as_attempt=False, applied=effects
                    )
                completion = self.overview.find(gateway, job) or self._poll(gateway, job)
        except GatewayError as error:
            log.warning("poll failed", gateway=job.gateway, code=error.code, why=str(error))
            self.breaker.gateway_failed(gateway.name, "ask", error)
            return self._unanswered(job, worker, effects, error, unconfirmed=unconfirmed)
        self.breaker.gateway_answered(gateway.name, "ask")
        if completion.state is State.RUNNING:
            return self._unanswered(job, worker, effects, None, unconfirmed=unconfirmed)
        by = FoundBy.CALLBACK if unconfirmed else FoundBy.POLL
        if not unconfirmed and not job.callback_expected:
            by = FoundBy.POLL_ONLY
        attempt = self._attempt(completion.state, f"{job.gateway} was asked, and says so.")
        return self._decide(job, worker, gateway, completion, effects, job.found_by or by, [attempt])

    def _attempt(self, code: str, message: str) -> Attempt:
        return Attempt.once("ask", code, message, self.clock())

    def _unanswered(
        self, job: Job, worker: str, effects: dict[str, str], error: GatewayError | None, *, unconfirmed: bool
    ) -> Job:
        age = self.clock() - (job.moved_at(Status.RUNNING) or job.created_at)
        why = JobError(error.code, self.redactor.text(str(error)), error.at_fault) if error else None
        attempts = [self._attempt(why.code, why.message) if why else self._attempt("running", STILL_RUNNING)]
        if age > self.timing.no_answer * 1000:
            message = f"{job.gateway} gave no result in {self.timing.no_answer / 3600:g} hours."
            failure = JobError("no_answer", message, "gateway")
            return self.ledger.move(
                job, _ended(job), worker, applied=effects, error=failure, attempts=attempts
            )
        if self._forgotten(job, error, age):
            return self.ledger.move(job, _ended(job), worker, applied=effects, error=why, attempts=attempts)
        wait = self._next_wait(job, unconfirmed=unconfirmed)
        if isinstance(error, RateLimited):
            wait = max(wait, self.timing.later(error.retry_after_s))
        return self.ledger.postpone(
            job, worker, due_in_ms=int(wait * 1000), applied=effects, error=why, attempts=attempts
        )

    def _forgotten(self, job: Job, error: GatewayError | None, age_ms: int) -> bool:
        # One such answer may be a replica that lags behind; two in a row, later on, are believed.
        again = job.error is not None and job.error.code == UnknownGatewayJob.code
        return isinstance(error, UnknownGatewayJob) and again and age_ms > self.timing.forgotten * 1000

    def _next_wait(self, job: Job, *, unconfirmed: bool) -> float:
        if unconfirmed:
            return self.timing.backoff(job.attempts)
        following = job.attempts + 1
        step = self.timing.poll_wait(following, callback_expected=job.callback_expected)
        # Never less than a step from now: what was missed while we were down is not made up for.
        return max(step, self._due_in_ms(replace(job, attempts=following)) / 1000)

    def _decide(
        self,
        job: Job,
        worker: str,
        gateway: Gateway,
        completion: Completion,
        effects: dict[str, str],
        by: FoundBy = FoundBy.CALLBACK,
        attempts: Sequence[Attempt] = (),
    ) -> Job:
        """Move a job on by a completion that may be believed."""
        to = Status.READY if completion.state is State.SUCCEEDED and completion.images else _ended(job)
        # What was marked with an empty effect is the delivery that proves this very move.
        applied = {delivery_id: effect or to for delivery_id, effect in effects.items()}
        log.info("decided", gateway=job.gateway, to=to, found_by=by)
        return self.ledger.move(
            job,
            to,
            worker,
            keep_lease=True,
            applied=applied,
            attempts=attempts,
            gateway_job_id=job.gateway_job_id or completion.gateway_job_id,
            found_by=by,
            result=self._result(job, gateway, completion),
            error=None if to is Status.READY else self._failure(job, completion),
        )

    def _result(self, job: Job, gateway: Gateway, completion: Completion) -> JobResult:
        paid = completion.credits
        estimate = gateway.estimate(job.request) if completion.state is State.SUCCEEDED else None
        return JobResult(
            model=completion.model and self.redactor.text(completion.model),
            seed=completion.seed,
            credits=estimate if paid is None else paid,
            credits_estimated=paid is None and estimate is not None,
            images=completion.images,
            reply=self.redactor.value(completion.reply),
        )

    def _failure(self, job: Job, completion: Completion) -> JobError:
        if completion.state is State.SUCCEEDED:
            return JobError("no_images", f"{job.gateway} says it succeeded but names no image.", "gateway")
        why = self.redactor.text(completion.error or "no reason was given")
        return JobError("generation_failed", f"{job.gateway} says: {why}", "gateway")


def _ended(job: Job) -> Status:
    """Where a job comes to rest that yields no more: what a retry did not complete is partial as before."""
    return Status.PARTIAL if job.records else Status.FAILED
