"""Decide a submitted job by its callbacks, and poll its gateway where they do not settle it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import httpx
import structlog

from receiver import errors
from receiver.gateways import parsing
from receiver.gateways.base import Completion, Follow, Gateway, State
from receiver.gateways.client import BUSY_MS, not_configured
from receiver.jobs.bulk_poll import BulkPoller
from receiver.jobs.context import JobContext, Outcome, say
from receiver.redaction import MASK
from storage.ledger.job_writer import Move, Postpone
from storage.models import (
    Attempt,
    Delivery,
    FoundBy,
    ImageRef,
    Job,
    JobError,
    JobResult,
    Status,
    Verdict,
    Withheld,
)

log = structlog.get_logger("darkroom.reconcile")

Reading = Callable[[httpx.Response], Completion | Follow]
Confirm = Literal["auto", "always", "never"]
MAX_SHOWN = 4000
"""How many characters of an answer are shown with an error."""
STILL_RUNNING = "Asked the gateway; it is still running."
INLINE = "inline:"
"""In place of the URL of an image whose bytes are in the gateway's answer."""
HINT = "hint"
"""The effect of an unconfirmed callback: the gateway itself is asked."""


@dataclass(frozen=True, slots=True)
class _News:
    """What the pending deliveries of a job say."""

    effects: dict[str, str]
    gateway_job_id: str | None = None
    proven: Completion | None = None
    """What a delivery says that is believed as it is; the effect of that one is empty."""
    found_by: FoundBy = FoundBy.CALLBACK
    unconfirmed: bool = False

    def add(self, delivery: Delivery, effect: str, **learned: Any) -> _News:
        return replace(self, effects=self.effects | {delivery.id: effect}, **learned)


@dataclass(frozen=True, slots=True)
class Reconciler:
    """The step from a submitted job to its result. Thread-safe."""

    context: JobContext
    confirm: Mapping[str, Confirm]
    overview: BulkPoller

    def advance(self, job: Job) -> Outcome:
        """Apply a job's deliveries; poll its gateway where they do not settle it or none came."""
        gateway = self.context.gateways.get(job.gateway)
        if gateway is None:
            return Postpone(60_000, ignore_callbacks=True, error=not_configured(job))
        news = self._read(gateway, job)
        # The callback may have overtaken the answer to our submission, or that answer was lost.
        job = replace(job, gateway_job_id=job.gateway_job_id or news.gateway_job_id)
        if news.proven is not None:
            return self._decide(job, gateway, news.proven, news.effects, news.found_by)
        if job.gateway_job_id is None and job.status is Status.RUNNING:
            # Only the answer to its submission had its result, and an upgrade reads that one no more.
            message = f"{job.gateway} gave no id for this job, so it cannot be asked; a callback may come."
            return self._unanswered(job, news, errors.GarbledAnswer(message))
        if job.gateway_job_id is None:
            return Postpone(0, counts_as_attempt=False, applied=news.effects)
        if job.status is Status.SUBMITTING:
            return Move(Status.RUNNING, keep_lease=True, gateway_job_id=job.gateway_job_id)
        news = replace(news, unconfirmed=news.unconfirmed or self._unconfirmed_before(job))
        at_once = news.unconfirmed or (job.reopened and job.attempts == 0) or _just_called_off(job)
        if not at_once and (wait_ms := self._due_in_ms(job)) > 0:
            return Postpone(wait_ms, counts_as_attempt=False, applied=news.effects)
        return self._ask(job, gateway, news)

    def fresh(self, job: Job) -> Completion | None:
        """Poll for fresh links to a ready job's images; None if there are none. Raises GatewayError."""
        gateway, breaker = self.context.gateways.get(job.gateway), self.context.breaker
        if gateway is None or job.gateway_job_id is None:
            return None
        if breaker.asking_waits_ms(gateway.name) > 0:
            raise errors.GatewayUnavailable(f"{gateway.name} is paused after errors.")
        with self.context.sender.reserve(gateway.name) as free:
            if not free:
                raise errors.GatewayUnavailable(
                    f"{gateway.name} has as many requests as it may have already."
                )
            try:
                completion, _ = self._poll(gateway, job)
            except errors.GatewayError as error:
                breaker.gateway_failed(gateway.name, "ask", error)
                raise
        breaker.gateway_answered(gateway.name, "ask")
        return self._placed(job, completion) if completion.state is State.SUCCEEDED else None

    def inline_images(self, job: Job) -> tuple[ImageRef, ...]:
        """Return the images of a job whose bytes are in the answer itself: from the delivery that proved it,
        or by asking again. Raises GatewayError.
        """
        gateway = self.context.gateways.get(job.gateway)
        for delivery in reversed(self.context.ledger.deliveries(job.id)):
            if gateway is None or delivery.effect != Status.READY:
                continue
            with suppress(errors.MalformedCallback, errors.GatewayError):
                images = self._placed(job, _completion(gateway, delivery, job)).images
                # Once the job was finished, the delivery has them no more.
                if any(parsing.is_inline(one.url) and not one.url.endswith(MASK) for one in images):
                    return images
        completion = self.fresh(job)
        return completion.images if completion else ()

    def _poll(self, gateway: Gateway, job: Job) -> tuple[Completion, bytes]:
        """Ask a gateway for a job; return what it says, and its words. Raises GatewayError."""
        assert job.gateway_job_id is not None
        metrics = self.context.metrics
        try:
            response, completion = self._asked(
                gateway, gateway.poll(job), lambda it: gateway.read_poll(it, job)
            )
            if completion.gateway_job_id not in {job.gateway_job_id, None}:
                raise errors.GarbledAnswer(f"{gateway.name} answered with another job than was asked about.")
        except errors.GatewayError as error:
            metrics.count("darkroom_polls_total", gateway=gateway.name, outcome=error.code)
            raise
        metrics.count("darkroom_polls_total", gateway=gateway.name, outcome=completion.state)
        return completion, response.content

    def _asked(
        self, gateway: Gateway, request: httpx.Request, read: Reading
    ) -> tuple[httpx.Response, Completion]:
        """Send a poll, and what follows it, which may go to the same host only. Raises GatewayError."""
        host = (request.url.scheme, request.url.host, request.url.port)
        for _ in range(2):
            with self.context.metrics.timed(
                "darkroom_gateway_request_seconds", gateway=gateway.name, call="poll"
            ):
                response = self.context.sender.send(request)
            found = read(response)
            if isinstance(found, Completion):
                return response, found
            request, read = found.request, found.read
            if (request.url.scheme, request.url.host, request.url.port) != host:
                raise errors.GarbledAnswer(
                    f"{gateway.name} has the result on another host, which is not asked."
                )
        raise errors.GarbledAnswer(f"{gateway.name} sends from one place to the next for the result.")

    def _read(self, gateway: Gateway, job: Job) -> _News:
        news = _News({})
        for delivery in self.context.ledger.pending_deliveries(job.id):
            try:
                completion = _completion(gateway, delivery, job)
            except (errors.MalformedCallback, errors.GatewayError):
                # It could be read when it came in, so an upgrade changed how; polling settles it.
                news = news.add(delivery, HINT, unconfirmed=True)
                continue
            news = self._classify(news, job, delivery, self._kept(completion))
        return news

    def _kept(self, completion: Completion) -> Completion:
        """Return a completion as it may be kept: its reply redacted, and of an inline image a mark alone.

        Their bytes stay where they are, in the delivery or at the gateway, until they are archived.
        """
        marked = (
            replace(image, url=INLINE) if parsing.is_inline(image.url) else image
            for image in completion.images
        )
        reply = self.context.redactor.value(parsing.without_images(completion.reply))
        return replace(completion, images=tuple(marked), reply=reply)

    def _classify(self, news: _News, job: Job, delivery: Delivery, completion: Completion) -> _News:
        ours, theirs = job.gateway_job_id or news.gateway_job_id, completion.gateway_job_id
        strange = theirs is not None and theirs != ours
        if strange and (ours is not None or self.context.ledger.knows(job.gateway, theirs or "")):
            # It came before the answer to our submission, which then named another job; or before this one
            # turned out to be another job of ours.
            return news.add(delivery, "mismatch")
        learned = ours or theirs
        if completion.state is State.RUNNING:
            return news.add(delivery, "progress", gateway_job_id=learned)
        if not self._believable(job, delivery, completion):
            return news.add(delivery, HINT, gateway_job_id=learned, unconfirmed=True)
        if news.proven is not None:
            return news.add(delivery, "late", gateway_job_id=learned)
        by = FoundBy.SUBMISSION if delivery.signature is Verdict.ANSWER else FoundBy.CALLBACK
        return news.add(delivery, "", gateway_job_id=learned, proven=completion, found_by=by)

    def _believable(self, job: Job, delivery: Delivery, completion: Completion) -> bool:
        confirm = self.confirm[job.gateway]
        if (completion.state is State.SUCCEEDED and not completion.images) or completion.partial:
            return False
        if delivery.signature in {Verdict.STALE, Verdict.ORIGIN}:
            return False
        if delivery.signature is Verdict.ANSWER:
            return True
        return confirm == "never" or (confirm == "auto" and delivery.signature is Verdict.VALID)

    def _unconfirmed_before(self, job: Job) -> bool:
        # What came before this submission spoke of an earlier one.
        since = job.submission_at or 0
        deliveries = self.context.ledger.deliveries(job.id)
        return any(one.effect == HINT and one.received_at > since for one in deliveries)

    def _due_in_ms(self, job: Job) -> int:
        since, now = job.moved_at(Status.RUNNING) or job.created_at, self.context.clock()
        if since > now:
            # The clock was set back since, so nothing can be counted from then; that it is due must do.
            return 0
        due = self.context.timing.poll_due(job.attempts, callback_expected=job.callback_expected)
        return since + int(due * 1000) - now

    def _ask(self, job: Job, gateway: Gateway, news: _News) -> Outcome:
        breaker, effects = self.context.breaker, news.effects
        if (wait_ms := breaker.asking_waits_ms(gateway.name)) > 0:
            return Postpone(wait_ms, counts_as_attempt=False, ignore_callbacks=True, applied=effects)
        try:
            with self.context.sender.reserve(gateway.name) as free:
                if not free:
                    return Postpone(BUSY_MS, counts_as_attempt=False, applied=effects)
                completion, body = self.overview.find(gateway, job), b""
                if completion is None or _has_inline(completion):
                    completion, body = self._poll(gateway, job)
            inline, completion = _has_inline(completion), self._kept(completion)
        except errors.GatewayError as error:
            log.warning("poll failed", gateway=job.gateway, code=error.code, why=str(error))
            breaker.gateway_failed(gateway.name, "ask", error)
            return self._unanswered(job, news, error)
        breaker.gateway_answered(gateway.name, "ask")
        doubt = self._doubt(job, completion)
        if completion.state is State.RUNNING or doubt is not None:
            return self._unanswered(job, news, doubt)
        by = FoundBy.POLL if job.callback_expected else FoundBy.POLL_ONLY
        if news.unconfirmed:
            by = FoundBy.CALLBACK
        attempt = self._attempt(completion.state, f"Asked {job.gateway}: it {completion.state}.")
        decided = self._decide(job, gateway, completion, effects, job.found_by or by, [attempt])
        if decided.to is Status.READY and inline:
            # Nobody may have them again, so that they are kept as a callback's are until they are archived.
            decided.options["answer"] = self.context.answer(job, body, effect=Status.READY)
        return decided

    def _attempt(self, code: str, message: str) -> Attempt:
        return Attempt.once("ask", code, message, self.context.clock())

    def _doubt(self, job: Job, completion: Completion) -> errors.GatewayError | None:
        """Return why nothing is decided by a report yet: a part is not understood, or it lacks images.

        What it has is taken if the rest does not come.
        """
        if completion.unread is not None:
            message = f"{job.gateway} answered, but {completion.unread}. A newer Darkroom may know it."
            return errors.GarbledAnswer(message, details=self._shown(completion))
        if completion.state is not State.SUCCEEDED or (completion.images and not completion.partial):
            return None
        error = self._no_images(job, completion)
        return error if self._said_for_s(job, error) < self.context.timing.no_images else None

    def _no_images(self, job: Job, completion: Completion) -> errors.NoImages:
        message = f"{job.gateway} says that it succeeded, but its answer names no image."
        if made := len(completion.images):
            message = f"{job.gateway} has {made} of {job.request.num_images} images so far."
        reasons = dict.fromkeys(one.reason for one in completion.withheld if one.reason)
        if why := "; ".join(reasons) or completion.error:
            message += f" It says: {self._text(why)}"
        return errors.NoImages(message, details=self._shown(completion))

    def _shown(self, completion: Completion) -> Mapping[str, Any]:
        """Return an answer to be shown with an error; only the beginning of a long one."""
        text = json.dumps(completion.reply, ensure_ascii=False)
        return {"answer": completion.reply if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"}

    def _said_for_s(self, job: Job, error: errors.GatewayError) -> float:
        """Return for how long a gateway has been saying the same, without anything else in between."""
        last = job.attempt_log[-1] if job.attempt_log else None
        if last is None or (last.step, last.code) != ("ask", error.code):
            return 0
        return (self.context.clock() - last.first_at) / 1000

    def _unanswered(self, job: Job, news: _News, error: errors.GatewayError | None) -> Outcome:
        timing, effects = self.context.timing, news.effects
        age_s = (self.context.clock() - (job.moved_at(Status.RUNNING) or job.created_at)) / 1000
        why = JobError(error.code, self._text(str(error)), error.at_fault, error.details) if error else None
        attempts = [self._attempt(why.code, why.message) if why else self._attempt("running", STILL_RUNNING)]
        if age_s > timing.no_answer:
            message = f"{job.gateway} gave no result in {timing.no_answer / 3600:g} hours."
            if why is not None:
                message += f" At last: {why.message}"
            failure = JobError("no_answer", message, "gateway", why.details if why else None)
            return Move(self._ended(job), applied=effects, error=failure, attempts=attempts)
        # One such answer may be a replica that lags behind; two in a row, later on, are believed.
        again = job.error is not None and job.error.code == errors.UnknownGatewayJob.code
        if isinstance(error, errors.UnknownGatewayJob) and again and age_s > timing.forgotten:
            return Move(self._ended(job), applied=effects, error=why, attempts=attempts)
        soon = news.unconfirmed or isinstance(error, errors.NoImages)
        wait_s = timing.backoff(job.attempts) if soon else self._next_wait_s(job)
        if isinstance(error, errors.RateLimited):
            wait_s = max(wait_s, timing.later(error.retry_after_s))
        return Postpone(int(wait_s * 1000), applied=effects, error=why, attempts=attempts)

    def _next_wait_s(self, job: Job) -> float:
        following = job.attempts + 1
        step = self.context.timing.poll_wait(following, callback_expected=job.callback_expected)
        # Never less than a step from now: polls that were missed during an outage are not made up for.
        return max(step, self._due_in_ms(replace(job, attempts=following)) / 1000)

    def _decide(
        self,
        job: Job,
        gateway: Gateway,
        completion: Completion,
        effects: dict[str, str],
        by: FoundBy = FoundBy.CALLBACK,
        attempts: Sequence[Attempt] = (),
    ) -> Move:
        """Move a job on by a completion that may be believed."""
        to = Status.READY if completion.state is State.SUCCEEDED and completion.images else self._ended(job)
        if to is Status.FAILED and completion.state is State.FAILED and self._called_off(gateway, job):
            to = Status.CANCELLED
        say(job, "decided", gateway=job.gateway, to=to, found_by=by)
        result = self._result(job, gateway, self._placed(job, completion))
        if replace(job, result=result).short:
            log.warning("fewer images than requested", returned=result.images_returned)
            self.context.metrics.count("darkroom_short_results_total", gateway=job.gateway)
        return Move(
            to,
            keep_lease=True,
            # An empty effect is that of the delivery that proves this very move.
            applied={delivery_id: effect or to for delivery_id, effect in effects.items()},
            attempts=attempts,
            gateway_job_id=job.gateway_job_id or completion.gateway_job_id,
            found_by=by,
            result=result,
            error=None if to in {Status.READY, Status.CANCELLED} else self._failure(job, completion),
        )

    def _result(self, job: Job, gateway: Gateway, completion: Completion) -> JobResult:
        paid, made = completion.credits, len(completion.images)
        succeeded = completion.state is State.SUCCEEDED
        # By what came, which may be fewer images than requested, or more.
        estimate = gateway.estimate(replace(job.request, num_images=made)) if succeeded else None
        return JobResult(
            model=completion.model and self._text(completion.model),
            seed=completion.seed,
            echoed_seed=completion.echoed_seed,
            credits=estimate if paid is None else paid,
            credits_estimated=paid is None and estimate is not None,
            images=completion.images,
            images_returned=made if succeeded and not _numbered_before(job) else None,
            withheld=tuple(
                Withheld(one.index, one.reason and self._text(one.reason)) for one in completion.withheld
            ),
            reply=completion.reply,
        )

    def _placed(self, job: Job, completion: Completion) -> Completion:
        """Number the images as an earlier version did, where it began with them: without the empty places."""
        if not _numbered_before(job):
            return completion
        numbered = (replace(image, index=number) for number, image in enumerate(completion.images))
        return replace(completion, images=tuple(numbered))

    def _failure(self, job: Job, completion: Completion) -> JobError:
        if completion.state is State.EXPIRED:
            message = f"{job.gateway} made the images, and has deleted them before they could be had."
            return JobError(errors.ResultExpired.code, message, "gateway")
        if completion.state is State.SUCCEEDED:
            error = self._no_images(job, completion)
            return JobError(error.code, str(error), error.at_fault, error.details)
        why = self._text(completion.error or "no reason was given")
        return JobError("generation_failed", f"{job.gateway} says: {why}", "gateway")

    def _called_off(self, gateway: Gateway, job: Job) -> bool:
        """Return whether a gateway was told to cancel a job, as the ledger knows now."""
        return (
            gateway.cancel_request(job) is not None
            and self.context.ledger.job(job.id).called_off_at is not None
        )

    def _text(self, text: str) -> str:
        return self.context.redactor.text(text)

    def _ended(self, job: Job) -> Status:
        """Return the final status of a job that yields no more: what is archived of it stays partial."""
        outputs = self.context.ledger.outputs(job.id) if job.records else ()
        archived = any(output.missing_since is None for output in outputs)
        return Status.PARTIAL if archived else Status.FAILED


def _completion(gateway: Gateway, delivery: Delivery, job: Job) -> Completion:
    """Parse a delivery. Raises MalformedCallback, or GatewayError where it is no callback but an answer."""
    if delivery.signature is Verdict.ANSWER:
        return gateway.read_answer(delivery.body, job)
    return gateway.read_callback(delivery.body)


def _just_called_off(job: Job) -> bool:
    """Return whether a job was called off after its gateway was asked about it last."""
    last = job.attempt_log[-1].last_at if job.attempt_log else 0
    return job.called_off_at is not None and job.called_off_at >= last


def _has_inline(completion: Completion) -> bool:
    return any(parsing.is_inline(image.url) for image in completion.images)


def _numbered_before(job: Job) -> bool:
    """Return whether an earlier version, which did not count empty places, has numbered the job's images."""
    return job.result.images_returned is None and bool(job.result.images or job.records)
