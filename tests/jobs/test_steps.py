"""What each step of a job's life decides, as tables: nothing is written but that a job is being sent."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.callbacks.tokens import CallbackTokens, CallbackUrls
from receiver.gateways.api_in_one import ApiInOne
from receiver.gateways.apiframe import Apiframe
from receiver.gateways.base import Gateway
from receiver.jobs.bulk_poll import BulkPoller
from receiver.jobs.context import JobContext, Outcome
from receiver.jobs.reconcile import Reconciler
from receiver.jobs.steps import Steps
from receiver.jobs.submit import Answered, Submitter
from storage.errors import Unavailable
from storage.ledger.backlog import Backlog
from storage.ledger.database import Database
from storage.ledger.deliveries import DeliveryResult
from storage.ledger.job_writer import Move, Postpone
from storage.ledger.ledger import Ledger
from storage.models import Job, JobRequest, Status
from tests.support.gateway_samples import adapter
from tests.support.ledgers import Clock, add, offer
from tests.support.workers import job_context

GATEWAYS: dict[str, Gateway] = {
    "apiframe": adapter(Apiframe, "afk_key"),
    "api-in-one": adapter(ApiInOne, "aio_key"),
}
ACCEPTED = {"apiframe": {"jobId": "theirs"}, "api-in-one": {"code": 200, "data": {"task_id": "theirs"}}}
QUEUED, RUNNING, READY, FAILED = Status.QUEUED, Status.RUNNING, Status.READY, Status.FAILED


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Database.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")) as database:
        yield Ledger(database, Clock())


class Answer(httpx.BaseTransport):
    """Gives one answer, or none; `sent` is the job as it was in the ledger when the request left."""

    def __init__(self, answer: httpx.Response | None, ledger: Ledger) -> None:
        self.answer = answer
        self.ledger = ledger
        self.sent: Job | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent = self.ledger.job("job-1")
        if self.answer is None:
            raise httpx.ReadTimeout("", request=request)
        return self.answer


def submitting(context: JobContext, urls: CallbackUrls) -> Submitter:
    return Submitter(context, urls, lambda _url: None, None, lambda *_: (), lambda: None)


def poll_only(context: JobContext) -> Submitter:
    return submitting(context, CallbackUrls(None, None))  # type: ignore[arg-type]


def submitted(ledger: Ledger, gateway: str, answer: Answer) -> Outcome:
    """Decide on a queued job by what its gateway answers."""
    add(ledger, gateway=gateway)
    (job,) = ledger.claim("w", 1)
    context = job_context(ledger, GATEWAYS, answer)
    urls = CallbackUrls(
        "https://archive.example", CallbackTokens(["k" * 40], max_age_s=60, clock=ledger._clock)
    )
    submitter = submitting(context, urls)
    return submitter.send(job)


def taken(gateway: str) -> httpx.Response:
    return httpx.Response(200, json=ACCEPTED[gateway])


@pytest.mark.parametrize(
    ("gateway", "answer", "to", "code"),
    [
        ("apiframe", taken("apiframe"), RUNNING, None),
        ("apiframe", httpx.Response(429, headers={"retry-after": "7"}), QUEUED, "rate_limited"),
        ("apiframe", httpx.Response(401), QUEUED, "gateway_unauthorized"),
        ("apiframe", httpx.Response(400, json={"message": "no"}), FAILED, "gateway_refused"),
        ("apiframe", httpx.Response(503), QUEUED, "gateway_unavailable"),
        ("apiframe", None, QUEUED, "outcome_unknown"),
        ("api-in-one", taken("api-in-one"), RUNNING, None),
        ("api-in-one", httpx.Response(429), QUEUED, "rate_limited"),
        ("api-in-one", httpx.Response(500), None, "outcome_unknown"),
        ("api-in-one", httpx.Response(200, content=b"<html>"), None, "garbled_answer"),
        ("api-in-one", None, None, "outcome_unknown"),
    ],
)
def test_submission(
    ledger: Ledger, gateway: str, answer: httpx.Response | None, to: Status | None, code: str | None
) -> None:
    """`to` is None where it stays submitting: it may have been accepted and must not be sent again."""
    wire = Answer(answer, ledger)
    outcome = submitted(ledger, gateway, wire)
    assert isinstance(outcome, Answered)
    assert outcome.job.status is Status.SUBMITTING
    assert wire.sent == outcome.job, "committed before the request left"
    decided = outcome.outcome
    assert (decided.to if isinstance(decided, Move) else None) == to
    error = decided.options.get("error")
    assert (error and error.code) == code
    assert decided.options.get("gateway_job_id") == ("theirs" if to is RUNNING else None)
    (attempt,) = decided.options["attempts"]
    assert (attempt.step, attempt.code) == ("send", code or "taken")


def test_nothing_is_sent_without_a_free_slot(ledger: Ledger) -> None:
    wire = Answer(taken("apiframe"), ledger)
    context = job_context(ledger, GATEWAYS, wire)
    context.sender._free["apiframe"] = 0
    submitter = poll_only(context)
    assert submitter.send(add(ledger)) == Postpone(250, counts_as_attempt=False)
    assert wire.sent is None


def test_a_callback_goes_before_another_submission(ledger: Ledger) -> None:
    """A submission that seemed to fail was accepted: its callback is applied, and nothing is sent again."""
    add(ledger, gateway="api-in-one")
    (job,) = ledger.claim("w", 1)
    job = ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
    job = ledger.move(job, QUEUED, "w", keep_lease=True)
    wire = Answer(taken("api-in-one"), ledger)
    context = job_context(ledger, GATEWAYS, wire)
    submitter = poll_only(context)
    steps = Steps(context, submitter, None, None)  # type: ignore[arg-type]
    assert ledger.add_deliveries([offer(job.id, theirs="theirs")]) == [DeliveryResult.ACCEPTED]
    assert steps.run(job) == Move(Status.SUBMITTING, keep_lease=True)
    assert wire.sent is None


def at_gateway(ledger: Ledger) -> Job:
    add(ledger)
    (job,) = ledger.claim("w", 1)
    job = ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
    return ledger.move(job, RUNNING, "w", keep_lease=True, gateway_job_id="theirs")


IMAGE = {"url": "https://cdn.example/1.png"}


@pytest.mark.parametrize(
    ("answer", "to", "code"),
    [
        ({"jobId": "theirs", "status": "COMPLETED", "result": {"images": [IMAGE]}}, READY, None),
        ({"jobId": "theirs", "status": "COMPLETED", "result": {"images": []}}, None, "no_images"),
        ({"jobId": "theirs", "status": "COMPLETED", "result": {"out": [IMAGE]}}, None, "garbled_answer"),
        ({"jobId": "theirs", "status": "POLISHING"}, None, "garbled_answer"),
        ({"jobId": "theirs", "status": "FAILED", "error": "no"}, FAILED, "generation_failed"),
        ({"jobId": "theirs", "status": "PROCESSING"}, None, None),
        ({"jobId": "another", "status": "PROCESSING"}, None, "garbled_answer"),
        (None, None, "outcome_unknown"),
    ],
)
def test_poll(ledger: Ledger, answer: Any, to: Status | None, code: str | None) -> None:
    response = None if answer is None else httpx.Response(200, json=answer)
    context = job_context(ledger, GATEWAYS, Answer(response, ledger))
    backlog = Backlog(ledger._database, ledger._clock)
    poller = BulkPoller(backlog, context.sender, context.clock)
    reconciler = Reconciler(context, {"apiframe": "auto"}, poller)
    job = at_gateway(ledger)
    assert isinstance(reconciler.advance(job), Postpone), "it is not due yet"
    ledger._clock.now += 31_000  # type: ignore[attr-defined]
    outcome = reconciler.advance(job)
    assert isinstance(outcome, Move | Postpone)
    assert (outcome.to if isinstance(outcome, Move) else None) == to
    error = outcome.options.get("error")
    assert (error and error.code) == code
    assert ledger.job(job.id) == job, "nothing is written"


def test_no_images_is_believed_after_some_minutes(ledger: Ledger) -> None:
    """Each poll says so; the last one is believed, and what the gateway said is shown all along."""
    answer = {"jobId": "theirs", "status": "COMPLETED", "result": {"images": []}, "note": "see you"}
    context = job_context(ledger, GATEWAYS, Answer(httpx.Response(200, json=answer), ledger))
    poller = BulkPoller(Backlog(ledger._database, ledger._clock), context.sender, context.clock)
    reconciler = Reconciler(context, {"apiframe": "auto"}, poller)
    job, waited = at_gateway(ledger), 0
    while job.status is RUNNING:
        assert waited < 1_000_000
        ledger._clock.now += 31_000  # type: ignore[attr-defined]
        waited += 31_000
        job = ledger.claim("w", 1)[0] if job.leased_by is None else job
        job = reconciler.advance(job).write(ledger, job, "w")
        assert job.error is not None
        assert job.error.code == "no_images"
        assert (job.error.details or {})["answer"]["note"] == "see you"
        while job.status is RUNNING and (job.next_attempt_at or 0) > ledger._clock.now:  # type: ignore[attr-defined]
            ledger._clock.now += 31_000  # type: ignore[attr-defined]
            waited += 31_000
    assert job.status is FAILED
    assert 600_000 < waited < 1_000_000


@pytest.mark.parametrize(
    ("asked", "images", "places", "short", "paid"),
    [
        (2, ["a", "b"], [0, 1], False, 8),
        (4, ["a", "b"], [0, 1], True, 8),
        (3, ["a", None, "b"], [0, 2], True, 8),
        (None, ["a", None], [0], True, 4),
        (2, ["a", "a"], [0], True, 4),
        (1, ["a", "b", "c"], [0, 1, 2], False, 12),
        (None, ["a"], [0], False, 4),
    ],
)
def test_what_came_is_compared_with_what_was_asked(
    ledger: Ledger, asked: int | None, images: list[str | None], places: list[int], short: bool, paid: int
) -> None:
    add(ledger, gateway="api-in-one", request=JobRequest("imagen4-fast", "a kite", num_images=asked))
    job, outcome = decided(ledger, images)
    result = outcome.options["result"]
    assert [image.index for image in result.images] == places
    assert (result.credits, result.images_returned) == (paid, len(places))
    moved = outcome.write(ledger, job, "w")
    assert (moved.short, moved.result) == (short, result)
    again = ledger.job(job.id)
    assert (again.short, again.result.images, again.result.withheld) == (
        short,
        result.images,
        result.withheld,
    )


def test_what_an_older_version_numbered_stays_so(ledger: Ledger) -> None:
    add(ledger, gateway="api-in-one")
    job, outcome = decided(ledger, ["a", None, "b"], records=1)
    assert [image.index for image in outcome.options["result"].images] == [0, 1]
    noted = replace(job, result=replace(job.result, images_returned=2))
    newer = reconciler_of(ledger, ["a", None, "b"]).advance(noted)
    assert isinstance(newer, Move)
    assert [image.index for image in newer.options["result"].images] == [0, 2]


def reconciler_of(ledger: Ledger, images: list[str | None]) -> Reconciler:
    links = [name and f"https://cdn.example/{name}.png" for name in images]
    task = {"task_id": "theirs", "status": "completed", "output": {"image_urls": links}}
    answer = Answer(httpx.Response(200, json={"code": 200, "data": task}), ledger)
    context = job_context(ledger, GATEWAYS, answer)
    poller = BulkPoller(Backlog(ledger._database, ledger._clock), context.sender, context.clock)
    return Reconciler(context, {"api-in-one": "auto"}, poller)


def decided(ledger: Ledger, images: list[str | None], **job_has: Any) -> tuple[Job, Move]:
    """Return the outcome of a poll of the job in the ledger, whose answer lists these images."""
    (job,) = ledger.claim("w", 1)
    job = ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
    job = ledger.move(job, RUNNING, "w", keep_lease=True, gateway_job_id="theirs")
    ledger._clock.now += 31_000  # type: ignore[attr-defined]
    job = replace(job, **job_has)
    outcome = reconciler_of(ledger, images).advance(job)
    assert isinstance(outcome, Move)
    return job, outcome


class TestAnswered:
    """The write of a gateway's answer to a submission, which it cannot be asked for again."""

    outcome = Move(RUNNING, gateway_job_id="theirs")

    def submitting(self, ledger: Ledger, job_id: str = "job-1") -> Job:
        add(ledger, job_id)
        (job,) = ledger.claim("w", 1)
        return ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)

    def test_fails_a_job_with_the_id_of_another(self, ledger: Ledger) -> None:
        for job in (self.submitting(ledger), self.submitting(ledger, "job-2")):
            after = Answered(job, self.outcome).write(ledger, job, "w")
        assert (after.status, after.error and after.error.code) == (FAILED, "gateway_job_taken")

    def test_retries_while_the_ledger_is_away(self, ledger: Ledger) -> None:
        away = iter([True, False])

        class Shaky(Ledger):
            def move(self, *args: Any, **more: Any) -> Job:
                if next(away):
                    raise Unavailable("away")
                return super().move(*args, **more)

        job = self.submitting(ledger)
        shaky = Shaky(ledger._database, ledger._clock)
        assert Answered(job, self.outcome).write(shaky, job, "w").status is RUNNING
