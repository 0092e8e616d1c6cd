"""The state machine of a job: its legal moves, and the columns that they set."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from decimal import Context, Decimal
from math import isfinite
from typing import Any

from storage.errors import Conflict
from storage.ledger.rows import error_columns
from storage.models import Attempt, Job, Status

# Two tables, so that no step of a job's life can take it out of a terminal status.
MOVES: Mapping[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.SUBMITTING, Status.FAILED, Status.CANCELLED}),
    # Back to queued: the gateway certainly did not accept it. To ready: its callback overtook the response.
    Status.SUBMITTING: frozenset({Status.QUEUED, Status.RUNNING, Status.READY, Status.FAILED}),
    # To partial: a retry found nothing more, and what was archived before still is. To cancelled: the gateway
    # was told to, and says that it did.
    Status.RUNNING: frozenset({Status.READY, Status.PARTIAL, Status.FAILED, Status.CANCELLED}),
    Status.READY: frozenset({Status.ARCHIVED, Status.PARTIAL, Status.FAILED}),
    Status.ARCHIVED: frozenset(),
    Status.PARTIAL: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}
"""The legal moves of a job; `Ledger.move` refuses every other."""

REOPENS: Mapping[Status, frozenset[Status]] = {
    # To running: the gateway is polled for the result again. To queued: it is paid for again.
    Status.FAILED: frozenset({Status.QUEUED, Status.RUNNING}),
    Status.PARTIAL: frozenset({Status.RUNNING}),
    # Where an archived image is missing from the bucket.
    Status.ARCHIVED: frozenset({Status.RUNNING}),
    Status.CANCELLED: frozenset({Status.QUEUED}),
}
"""The legal moves of a retry that a user asked for; `Ledger.reopen` refuses every other."""

MAX_MOVES = 60
"""Of a job with more, the oldest rounds of `submitting` and back to `queued` are dropped."""

_EXACT = Context(prec=700)
"""Enough digits for every sum of 64-bit numbers."""

MAX_ATTEMPTS = 40
"""How many entries a job's log of attempts has at most."""


def columns_of_move(job: Job, to: Status, attempts: Sequence[Attempt], now: int) -> dict[str, Any]:
    """Return the columns that a move sets; raises Conflict if it is not legal."""
    if to not in MOVES[job.status]:
        raise Conflict(f"A job cannot move from {job.status} to {to}.")
    values = {
        "status": to,
        "attempts": _attempts_after(job, to),
        "updated_at": now,
        "moves": _moves(job, to, now),
        "attempt_log": append_attempts(job.attempt_log, attempts),
    }
    if to is Status.READY:
        values["ready_at"] = now
    if to.terminal:
        values |= {"next_attempt_at": None, "images": []}
    return values


def columns_of_cancelling(job: Job, now: int) -> dict[str, Any]:
    """Return the columns that cancelling sets: it cost nothing. Raises Conflict if it is not legal."""
    values = error_columns(None) | columns_of_move(job, Status.CANCELLED, (), now)
    return values | {"credits": 0.0, "credits_estimated": False, "leased_by": None, "leased_until": None}


def columns_of_reopening(job: Job, to: Status, attempt: Attempt, now: int) -> dict[str, Any]:
    """Return the columns that a retry of a terminal job sets; raises Conflict if it is not legal."""
    if to not in REOPENS.get(job.status, ()):
        raise Conflict(f"A job that is {job.status} cannot be put back to {to}.")
    values: dict[str, Any] = error_columns(None) | {
        "status": to,
        "attempts": 0,
        "next_attempt_at": now,
        "updated_at": now,
        "moves": _moves(job, to, now),
        "attempt_log": append_attempts(job.attempt_log, [attempt]),
    }
    if to is Status.QUEUED:
        # A new submission, without the gateway's job before.
        next_one = job.status is Status.CANCELLED or job.moved_at(Status.SUBMITTING) is not None
        values |= {"submission": job.submission + next_one, "submission_at": now, "found_by": None}
        values |= {"gateway_request_id": None, "poll_url": None, "sent": None, "reply": None}
        values |= {"called_off_at": None}
        values |= {"images_returned": None, "withheld": None}
        values |= _paid_before(job)
    return values


def _paid_before(job: Job) -> dict[str, Any]:
    """Return the columns that keep what a job was charged before its next submission."""
    amount, estimated = job.result.credits or 0.0, job.result.credits_estimated
    return {
        "credits_before": _plus(job.credits_before, amount),
        "credits_before_estimated": _plus(job.credits_before_estimated, amount if estimated else 0.0),
        "credits": None,
        "credits_estimated": False,
    }


def _plus(one: float, other: float) -> float:
    # As `storage.search.usage` adds up: decimal numbers, so that 0.1 and 0.2 are 0.3.
    both = float(_EXACT.add(Decimal(repr(one)), Decimal(repr(other))))
    return both if isfinite(both) else one


def _moves(job: Job, to: Status, now: int) -> list[list[Any]]:
    moves = [[moved, at] for moved, at in job.moves] + [[to, now]]
    if len(moves) > MAX_MOVES:
        _drop_a_round(moves)
    return moves


def _drop_a_round(moves: list[list[Any]]) -> None:
    """Drop the first round of `submitting` and back to `queued`; the rest are still legal moves."""
    for n in range(1, len(moves) - 1):
        if (moves[n][0], moves[n + 1][0]) == (Status.SUBMITTING, Status.QUEUED):
            del moves[n : n + 2]
            return


def _attempts_after(job: Job, to: Status) -> int:
    # `submitting` and back to `queued` are tries of one step, with one backoff.
    if to is Status.QUEUED:
        return job.attempts + 1
    return job.attempts if to is Status.SUBMITTING else 0


def append_attempts(log: Sequence[Attempt], news: Sequence[Attempt]) -> list[list[Any]]:
    """Append to a job's log of attempts; a repetition of the last entry is counted there.

    Beyond `MAX_ATTEMPTS` the first quarter and the latest stay, and the last one of each kind: that a gateway
    may have accepted a submission must not be forgotten.
    """
    entries = list(log)
    for attempt in news:
        last = entries[-1] if entries else None
        if last is not None and (last.step, last.code) == (attempt.step, attempt.code):
            entries[-1] = replace(attempt, first_at=last.first_at, times=last.times + attempt.times)
        else:
            entries.append(attempt)
    while len(entries) > MAX_ATTEMPTS:
        del entries[_dispensable([(entry.step, entry.code) for entry in entries])]
    return [list(astuple(entry)) for entry in entries]


def _dispensable(kinds: Sequence[tuple[str, str]]) -> int:
    """Return the index of the oldest entry behind the first quarter that another of its kind follows."""
    first = MAX_ATTEMPTS // 4
    repeated = (n for n in range(first, len(kinds)) if kinds[n] in kinds[n + 1 :])
    return next(repeated, first)
