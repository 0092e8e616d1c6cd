"""Hold what every step of a job's life needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from receiver.gateways.base import Gateway
from receiver.gateways.client import GatewayClient
from receiver.jobs.circuit_breaker import CircuitBreaker
from receiver.redaction import Redactor
from receiver.schedule import Timing
from receiver.telemetry.metrics import Metrics
from storage.ledger.ledger import Ledger
from storage.models import Clock


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
