"""The context of a job's steps, and a worker, on a ledger alone; nothing leaves but through `transport`."""

from collections.abc import Mapping
from typing import Any

import httpx

from receiver.gateways.base import Gateway
from receiver.gateways.client import GatewayClient
from receiver.jobs.circuit_breaker import CircuitBreaker
from receiver.jobs.context import JobContext, Step
from receiver.jobs.worker import Worker
from receiver.redaction import Redactor
from receiver.schedule import Timing
from receiver.telemetry.metrics import Metrics
from storage.ledger.circuits import Circuits
from storage.ledger.ledger import Ledger


def job_context(
    ledger: Ledger,
    gateways: Mapping[str, Gateway] | None = None,
    transport: httpx.BaseTransport | None = None,
    timing: Timing | None = None,
) -> JobContext:
    clock, redactor, timing = ledger._clock, Redactor([]), timing or Timing(jitter=0)
    client = httpx.Client(transport=transport, trust_env=False)
    return JobContext(
        ledger,
        gateways or {},
        GatewayClient(client, {"apiframe": 4, "api-in-one": 4}),
        CircuitBreaker(Circuits(ledger._database, clock), timing, redactor, clock),
        redactor,
        timing,
        clock,
        Metrics(["apiframe", "api-in-one"]),
    )


def worker(ledger: Ledger, step: Step, **more: Any) -> Worker:
    usual: dict[str, Any] = {
        "concurrency": 2,
        "moved": lambda _job: None,
        "forget": lambda: 0,
    }
    return Worker(job_context(ledger), step, **usual | more)
