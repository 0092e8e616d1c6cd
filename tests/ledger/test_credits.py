"""What a job cost, kept through every retry and every submission of it."""

from decimal import Decimal

import pytest

from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from storage.models import Attempt, Job, JobError, JobResult, Status, UsageBy
from storage.search.usage import DAY_MS, Spent, Usage, UsageFilter
from tests.support.ledgers import Clock, add

ASKED = Attempt.once("retry", "asked", "", 1)
GUESS, REPORT, NOTHING = JobResult(credits=4.0, credits_estimated=True), JobResult(credits=5.0), JobResult()


def fails(ledger: Ledger, result: JobResult) -> Job:
    """Run the job that is due, until its gateway says that it failed and what it cost."""
    (job,) = ledger.claim("w", 1)
    if job.status is Status.QUEUED:
        job = ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
        job = ledger.move(job, Status.RUNNING, "w", keep_lease=True)
    error = JobError("generation_failed", "No.", "gateway")
    return ledger.move(job, Status.FAILED, "w", error=error, result=result)


def spent(database: Database, clock: Clock) -> Spent:
    within = UsageFilter(UsageBy.GATEWAY, clock.now - DAY_MS, clock.now + DAY_MS)
    return Usage(database).read(within, limit=1).total


def test_a_new_submission_takes_nothing_away(database: Database, ledger: Ledger, clock: Clock) -> None:
    add(ledger)
    for number, amount in enumerate((5.0, 7.0), 1):
        failed = fails(ledger, JobResult(credits=amount))
        assert failed.submission == number
        ledger.reopen(failed, Status.QUEUED, ASKED)
    waiting = ledger.job("job-1")
    assert (waiting.result.credits, waiting.credits_before, waiting.credits_before_estimated) == (None, 12, 0)
    job = fails(ledger, NOTHING)
    assert (job.submission, job.result.credits, job.credits_before) == (3, None, 12)
    assert spent(database, clock) == Spent(jobs=1, unknown=1, credits=Decimal(12), estimated=None)


def test_earlier_estimates_stay_estimates(database: Database, ledger: Ledger, clock: Clock) -> None:
    add(ledger)
    for amount, estimated in ((0.1, True), (0.2, True), (0.7, False)):
        failed = fails(ledger, JobResult(credits=amount, credits_estimated=estimated))
        ledger.reopen(failed, Status.QUEUED, ASKED)
    job = fails(ledger, GUESS)
    assert (job.credits_before, job.credits_before_estimated) == (1.0, 0.3), "in decimal numbers"
    found = spent(database, clock)
    assert (found.unknown, float(found.credits or 0), float(found.estimated or 0)) == (0, 5.0, 4.3)


@pytest.mark.parametrize(
    ("first", "then", "kept"),
    [
        (REPORT, NOTHING, REPORT),
        (REPORT, GUESS, REPORT),
        (REPORT, JobResult(credits=6.0), JobResult(credits=6.0)),
        (GUESS, NOTHING, GUESS),
        (GUESS, REPORT, REPORT),
        (NOTHING, GUESS, GUESS),
    ],
)
def test_a_known_charge_is_kept(ledger: Ledger, first: JobResult, then: JobResult, kept: JobResult) -> None:
    add(ledger)
    again = ledger.reopen(fails(ledger, first), Status.RUNNING, ASKED)
    assert again.result.credits == first.credits
    (job,) = ledger.claim("w", 1)
    ledger.postpone(job, "w", due_in_ms=0, result=then)
    assert ledger.job("job-1").result == kept
    assert fails(ledger, then).result == kept
    assert ledger.job("job-1").credits_before == 0


def test_amounts_beyond_all_numbers_are_no_harm(ledger: Ledger) -> None:
    add(ledger)
    for amount in (1e308, 1e308, float("inf")):
        ledger.reopen(fails(ledger, JobResult(credits=amount)), Status.QUEUED, ASKED)
    assert ledger.job("job-1").credits_before == 1e308
