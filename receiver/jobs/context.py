"""Define what a step of a job's life gets, `JobContext`, and what it returns: an `Outcome`."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import uuid_utils

from receiver.gateways.base import Gateway
from receiver.gateways.client import GatewayClient
from receiver.jobs.circuit_breaker import CircuitBreaker
from receiver.redaction import Redactor
from receiver.schedule import Timing
from receiver.telemetry.logs import write_soon
from receiver.telemetry.metrics import Metrics
from storage.ledger.ledger import Ledger
from storage.models import Clock, Delivery, Job, Verdict


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

    def answer(self, job: Job, body: bytes, effect: str | None = None) -> Delivery:
        """Return a gateway's answer to a request of ours as a delivery, applied if it has an effect."""
        now = self.clock()
        return Delivery(
            id=str(uuid_utils.uuid7()),
            job_id=job.id,
            gateway=job.gateway,
            received_at=now,
            headers={},
            body=self.redactor.body(body),
            body_sha256=hashlib.sha256(body).hexdigest(),
            signature=Verdict.ANSWER,
            applied_at=None if effect is None else now,
            effect=effect,
        )


def say(job: Job, event: str, **fields: Any) -> None:
    """Log what happens to every job, as `write_soon` does."""
    write_soon("info", event, job=job.id, request=job.request_id, **fields)


class Outcome(Protocol):
    """What a step decided, such as a `Move` or `Postpone`; the worker writes it with its lease."""

    def write(self, ledger: Ledger, job: Job, worker: str) -> Job:
        """Write it to the ledger; raise LeaseLost, Conflict or Unavailable as `Ledger.move` does."""


Step = Callable[[Job], Outcome]
"""Decides how a job goes on, around one piece of I/O."""
