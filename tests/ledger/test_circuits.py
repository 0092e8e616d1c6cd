"""A gateway or an image host that is broken is left alone, visibly, and holds up nothing else."""

from typing import Literal

import pytest
from sqlalchemy import event

from receiver.errors import (
    GatewayError,
    GatewayRefused,
    GatewayUnauthorized,
    GatewayUnavailable,
    ImageExpired,
    ImageUnavailable,
    OutOfCredits,
    RateLimited,
)
from receiver.jobs.circuit_breaker import CircuitBreaker
from receiver.jobs.submit import perhaps_taken
from receiver.redaction import Redactor
from receiver.schedule import Timing
from storage.ledger.backlog import Backlog
from storage.ledger.circuits import Circuits
from storage.ledger.database import Database
from storage.ledger.leases import ClaimBudget
from storage.ledger.ledger import LEASE_MS, Ledger
from storage.models import Attempt, Circuit, Status
from tests.support.ledgers import REQUEST, Clock, add, add_job

GATEWAY = "apiframe"
TIMING = Timing(jitter=0)


@pytest.fixture
def circuits(database: Database, clock: Clock) -> Circuits:
    return Circuits(database, clock)


@pytest.fixture
def breaker(circuits: Circuits, clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(circuits, TIMING, Redactor(["afk_secret"]), clock)


def circuit(circuits: Circuits) -> Circuit:
    (only,) = circuits.every()
    return only


@pytest.mark.parametrize("error", [GatewayUnauthorized("no afk_secret"), OutOfCredits("no credits")])
def test_operator_errors_open_at_once(
    breaker: CircuitBreaker, circuits: Circuits, clock: Clock, error: GatewayError
) -> None:
    for _ in range(4):
        breaker.gateway_failed(GATEWAY, "send", error)
    paused = circuit(circuits)
    assert (paused.state(clock.now), paused.code, paused.at_fault) == ("open", error.code, "operator")
    assert "secret" not in paused.message
    assert paused.failures == 1, "several at once are one"
    assert breaker.sending_waits_ms(GATEWAY) == TIMING.pause_first * 1000


def test_each_failed_probe_doubles_the_pause(breaker: CircuitBreaker, clock: Clock) -> None:
    waits = []
    for _ in range(6):
        breaker.gateway_failed(GATEWAY, "send", OutOfCredits("no credits"))
        waits.append(breaker.sending_waits_ms(GATEWAY) // 1000)
        clock.now += waits[-1] * 1000
    assert waits == [30, 60, 120, 240, 300, 300]


def test_an_outage_opens_after_some_failures(
    breaker: CircuitBreaker, circuits: Circuits, clock: Clock
) -> None:
    for number in range(1, TIMING.breaker_failures):
        breaker.gateway_failed(GATEWAY, "send", GatewayUnavailable("down"))
        assert circuit(circuits).failures == number
        assert breaker.sending_waits_ms(GATEWAY) == 0
    breaker.gateway_failed(GATEWAY, "ask", GatewayUnavailable("down"))
    assert breaker.sending_waits_ms(GATEWAY) == breaker.asking_waits_ms(GATEWAY) == 5000
    clock.now += 5000
    assert circuit(circuits).state(clock.now) == "half_open"
    breaker.gateway_failed(GATEWAY, "ask", GatewayUnavailable("still down"))
    assert breaker.sending_waits_ms(GATEWAY) == 10_000


@pytest.mark.parametrize("answer", [None, GatewayRefused("no")], ids=["success", "refusal"])
def test_any_sound_answer_closes(
    breaker: CircuitBreaker, circuits: Circuits, answer: GatewayError | None
) -> None:
    for _ in range(TIMING.breaker_failures):
        breaker.gateway_failed(GATEWAY, "send", GatewayUnavailable("down"))
    if answer is None:
        breaker.gateway_answered(GATEWAY, "ask")
    else:
        breaker.gateway_failed(GATEWAY, "ask", answer)
    assert circuits.every() == []


def test_an_answer_to_a_poll_ends_no_pause_of_sending(breaker: CircuitBreaker, circuits: Circuits) -> None:
    breaker.gateway_failed(GATEWAY, "send", OutOfCredits("no credits"))
    assert breaker.asking_waits_ms(GATEWAY) == 0, "results that were paid for can still be asked for"
    breaker.gateway_answered(GATEWAY, "ask")
    assert circuit(circuits).code == "out_of_credits"
    breaker.gateway_answered(GATEWAY, "send")
    assert circuits.every() == []
    breaker.gateway_failed(GATEWAY, "ask", GatewayUnauthorized("no"))
    breaker.gateway_answered(GATEWAY, "send")
    assert circuits.every() == []


def test_a_rate_limit_waits_as_long_as_it_says(breaker: CircuitBreaker) -> None:
    breaker.gateway_failed(GATEWAY, "send", RateLimited("wait", retry_after_s=17))
    assert breaker.sending_waits_ms(GATEWAY) == breaker.asking_waits_ms(GATEWAY) == 17_000


def test_half_open_lets_one_submission_through(breaker: CircuitBreaker, ledger: Ledger, clock: Clock) -> None:
    for number in range(4):
        add(ledger, f"job-{number}")
    add(ledger, "other", "api-in-one")
    breaker.gateway_failed(GATEWAY, "send", OutOfCredits("no credits"))
    assert [job.id for job in ledger.claim("w", 10)] == ["other"], "no other gateway is held up"
    ledger.release("w")
    ledger.move(ledger.claim("w", 1)[0], Status.FAILED, "w")
    assert ledger.next_due() == clock.now + 30_000
    clock.now += 30_000
    assert len(ledger.claim("one", 10)) == 1
    assert ledger.claim("two", 10) == [], "while it is under way nobody else tries"
    assert ledger.next_due() == clock.now + LEASE_MS
    breaker.not_sent(GATEWAY)
    assert len(ledger.claim("two", 10)) == 1, "what was not sent lets another one go"
    breaker.gateway_answered(GATEWAY, "send")
    assert len(ledger.claim("two", 10)) == 2


def test_a_dead_image_host_opens(breaker: CircuitBreaker, circuits: Circuits, clock: Clock) -> None:
    for _ in range(TIMING.breaker_failures):
        assert breaker.host_waits_ms("cdn.example") == 0
        breaker.host_answered("cdn.example", ImageUnavailable("stalled"))
    assert breaker.host_waits_ms("cdn.example") == 5000
    assert breaker.host_waits_ms("other.example") == 0
    clock.now += 5000
    assert breaker.host_waits_ms("cdn.example") == 0, "one is let through"
    assert breaker.host_waits_ms("cdn.example") > 0, "and no other"
    breaker.host_answered("cdn.example", ImageExpired("gone, but it answers"))
    assert circuits.every() == []


def test_the_state_outlives_the_process(database: Database, breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.gateway_failed(GATEWAY, "send", OutOfCredits("no credits"))
    again = CircuitBreaker(Circuits(database, clock), TIMING, Redactor(), clock)
    assert again.sending_waits_ms(GATEWAY) == 30_000


def test_no_backlog_stands_before_another_gateway(ledger: Ledger, clock: Clock) -> None:
    for number in range(50):
        add(ledger, f"many-{number}")
    clock.now += 1
    add(ledger, "one", "api-in-one")
    claimed = ledger.claim("w", ClaimBudget(4, {"api-in-one": 4, GATEWAY: 4}))
    assert next(job.id for job in claimed) == "one"
    assert len(claimed) == 4
    assert len(ledger.claim("w", ClaimBudget(10, {GATEWAY: 2}, others=1))) == 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_work_is_found_without_reading_finished_jobs(ledger: Ledger, database: Database) -> None:
    add(ledger)
    asked: list[str] = []
    engine = database._engine
    # Not all statements are run by SQLAlchemy.
    event.listen(engine, "checkout", lambda driver, *_: driver.set_trace_callback(asked.append))
    ledger.claim("w", 5)
    ledger.next_due()
    backlog = Backlog(database, Clock())
    backlog.read()
    backlog.oldest_ready_at()
    backlog.many_due(GATEWAY, 5)
    ledger.repair_clock_skew()
    ledger.release("w")
    with engine.connect() as connection:
        plans = [
            step[3]
            for sql in asked.copy()
            if sql.startswith(("SELECT", "UPDATE"))
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}")
        ]
    assert any("ix_jobs_queued" in plan for plan in plans)
    assert [plan for plan in plans if plan == "SCAN jobs"] == []


def test_what_is_ready_stays_while_no_image_can_be_fetched(ledger: Ledger, clock: Clock) -> None:
    add(ledger, "ready")
    (job,) = ledger.claim("w", 1)
    job = ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
    ledger.move(job, Status.READY, "w")
    clock.now += 1
    add(ledger, "queued")
    room = ClaimBudget(5, {GATEWAY: 5}, no_images=[GATEWAY])
    assert ledger.next_due(room) == clock.now
    assert [job.id for job in ledger.claim("w", room)] == ["queued"]
    assert ledger.next_due(room) is None
    assert [job.id for job in ledger.claim("w", 5)] == ["ready"]


def test_jobs_are_due_again_after_a_clock_was_set_back(ledger: Ledger, clock: Clock) -> None:
    add(ledger, "held")
    add(ledger, "waiting")
    ledger.claim("dead", 1)
    (job,) = ledger.claim("w", 1)
    ledger.postpone(job, "w", due_in_ms=30_000)
    clock.now -= 3_600_000
    assert ledger.claim("w", 5) == []
    assert ledger.repair_clock_skew() == 2
    assert len(ledger.claim("w", 5)) == 2
    assert ledger.repair_clock_skew() == 0, "leases of now are left alone"


@pytest.mark.exhaustive("postgresql")
def test_attempts_are_kept_and_repetitions_counted(ledger: Ledger, clock: Clock) -> None:
    from storage.ledger.transitions import MAX_ATTEMPTS

    add_job(ledger, "job-1", GATEWAY, REQUEST, request_id="req-7")
    for number in range(5):
        (job,) = ledger.claim("w", 1)
        attempt = Attempt.once("ask", "running", f"look {number}", clock.now)
        ledger.postpone(job, "w", due_in_ms=0, attempts=[attempt])
        clock.now += 10
    kept = ledger.job("job-1")
    (only,) = kept.attempt_log
    assert (only.times, only.message, only.last_at - only.first_at) == (5, "look 4", 40)
    assert kept.request_id == "req-7"
    for number in range(100):
        (job,) = ledger.claim("w", 1)
        ledger.postpone(job, "w", due_in_ms=0, attempts=[Attempt.once("ask", f"code-{number}", "", 1)])
    log = ledger.job("job-1").attempt_log
    assert len(log) == MAX_ATTEMPTS
    assert (log[0].code, log[-1].code) == ("running", "code-99")


@pytest.mark.exhaustive("postgresql", "garbled_answer", "submitted_before")
@pytest.mark.parametrize("code", ["outcome_unknown", "garbled_answer", "submitted_before"])
def test_what_may_have_been_accepted_is_not_forgotten(ledger: Ledger, clock: Clock, code: str) -> None:
    add_job(ledger, "job-1", GATEWAY, REQUEST)
    others = ["rate_limited", "gateway_unavailable"] * 30
    for each in [*others[:15], code, *others]:
        (job,) = ledger.claim("w", 1)
        ledger.postpone(job, "w", due_in_ms=0, attempts=[Attempt.once("send", each, "", clock.now)])
    assert perhaps_taken(ledger.job("job-1"))


@pytest.mark.parametrize("kind", ["gateway", "image_host"])
def test_circuits_survive_a_clock_that_was_set_back(
    ledger: Ledger,
    circuits: Circuits,
    breaker: CircuitBreaker,
    clock: Clock,
    kind: Literal["gateway", "image_host"],
) -> None:
    def fail() -> None:
        for _ in range(TIMING.breaker_failures):
            if kind == "gateway":
                breaker.gateway_failed(GATEWAY, "send", GatewayUnavailable("down"))
            else:
                breaker.host_answered(GATEWAY, ImageUnavailable("down"))

    add(ledger)
    right = clock.now
    clock.now += 7 * 24 * 3600 * 1000
    fail()
    clock.now += 5000
    assert circuits.begin_probe(kind, GATEWAY)
    clock.now = right
    ledger.repair_clock_skew()
    assert circuit(circuits).state(clock.now) == "half_open"
    assert ledger.next_due() == clock.now
    assert circuits.begin_probe(kind, GATEWAY), "one try is let through at once"
    fail()
    assert circuit(circuits).failures == TIMING.breaker_failures + 1, "it goes on counting"
    before = circuit(circuits)
    ledger.repair_clock_skew()
    assert circuit(circuits) == before, "what is right is left as it is"
