"""Define what a step of a job's life gets, `JobContext`, and what it decides: `Move` or `Postpone`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Unpack

from receiver.gateways.base import Gateway
from receiver.gateways.client import GatewayClient
from receiver.jobs.circuit_breaker import CircuitBreaker
from receiver.redaction import Redactor
from receiver.schedule import Timing
from receiver.telemetry.metrics import Metrics
from storage.ledger.ledger import Ledger
from storage.ledger.rows import Changes
from storage.models import Attempt, Clock, Job, Status


@dataclass(frozen=True, slots=True)
class JobContext:
    """The parts that the steps share. Thread-safe."""

    ledger: Ledger
    gateways: Mapping[str, Gateway]
    sender: GatewayClient
    breaker: CircuitBreaker
    redactor: Redactor
    timing: Timing
    clock: Clock
    metrics: Metrics


class Outcome(Protocol):
    """What a step decided; the worker writes it with its lease."""

    def write(self, ledger: Ledger, job: Job, worker: str) -> Job:
        """Write it to the ledger; raise LeaseLost, Conflict or Unavailable as `Ledger.move` does."""


class _Options(Changes, total=False):
    applied: Mapping[str, str]
    attempts: Sequence[Attempt]


class MoveOptions(_Options, total=False):
    """The keyword arguments of `Ledger.move`."""

    due_in_ms: int
    keep_lease: bool
    at_most: int


class PostponeOptions(_Options, total=False):
    """The keyword arguments of `Ledger.postpone`."""

    counts_as_attempt: bool
    ignore_callbacks: bool


@dataclass(init=False, slots=True)
class Move:
    """Move a job to another status; with `keep_lease` the worker goes on with its next step at once."""

    to: Status
    options: MoveOptions

    def __init__(self, to: Status, **options: Unpack[MoveOptions]) -> None:
        self.to, self.options = to, options

    def write(self, ledger: Ledger, job: Job, worker: str) -> Job:
        """Write it to the ledger."""
        return ledger.move(job, self.to, worker, **self.options)


@dataclass(init=False, slots=True)
class Postpone:
    """Leave a job in its status until it is due again in `due_in_ms` milliseconds."""

    due_in_ms: int
    options: PostponeOptions

    def __init__(self, due_in_ms: int, **options: Unpack[PostponeOptions]) -> None:
        self.due_in_ms, self.options = due_in_ms, options

    def write(self, ledger: Ledger, job: Job, worker: str) -> Job:
        """Write it to the ledger."""
        return ledger.postpone(job, worker, due_in_ms=self.due_in_ms, **self.options)


Step = Callable[[Job], Outcome]
"""Decides how a job goes on, around one piece of I/O."""
