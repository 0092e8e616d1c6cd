"""The one place from which requests to gateways leave, so many at a time for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

import httpx

from receiver.gateways.base import send
from storage.models import Job, JobError

BUSY_MS = 250
"""When a job is looked at again that found its gateway's slots taken."""


class GatewayClient:
    """Sends gateway requests, at most as many at once to each gateway as its setting allows. Thread-safe.

    Nobody waits for a slot: a slow gateway would fill every worker with waiting, and hold up the others.
    """

    def __init__(self, client: httpx.Client, concurrency: Mapping[str, int]) -> None:
        self._client = client
        self._lock = Lock()
        self.limits = dict(concurrency)
        """How many requests there may be to each gateway at once."""
        self._free = dict(concurrency)

    @contextmanager
    def slot(self, gateway: str) -> Iterator[bool]:
        """Take one of a gateway's slots for the block, if one is free; gives whether it was."""
        with self._lock:
            free = self._free[gateway] > 0
            self._free[gateway] -= free
        try:
            yield free
        finally:
            with self._lock:
                self._free[gateway] += free

    def full(self) -> list[str]:
        """The gateways that have no slot free now."""
        with self._lock:
            return [gateway for gateway, free in self._free.items() if free <= 0]

    def send(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the whole answer; raises as `receiver.gateways.base.send` does."""
        return send(self._client, request)


def not_configured(job: Job) -> JobError:
    """Why nothing is sent about a job whose gateway has no API key here any more."""
    message = f"{job.gateway} has no API key here any more; set it again, and the job goes on."
    return JobError("unknown_gateway", message, "operator")
