"""Define what a step of a job's life gets, `JobContext`, and what it returns: an `Outcome`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from receiver.gateways.base import Gateway
from receiver.gateways.client import GatewayClient
from receiver.jobs.circuit_breaker import CircuitBreaker
from receiver.redaction import Redactor
from receiver.schedule import Timing
from receiver.telemetry.metrics import Metrics
from storage.ledger.ledger import Ledger
from storage.models import Clock, Job


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
    """What a step decided, such as a `Move` or `Postpone`; the worker writes it with its lease."""

    def write(self, ledger: Ledger, job: Job, worker: str) -> Job:
        """Write it to the ledger; raise LeaseLost, Conflict or Unavailable as `Ledger.move` does."""


Step = Callable[[Job], Outcome]
"""Decides how a job goes on, around one piece of I/O."""
