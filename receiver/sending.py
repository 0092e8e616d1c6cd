"""The one place from which requests to gateways leave, so many at a time for each."""

from __future__ import annotations

from collections.abc import Mapping
from threading import BoundedSemaphore

import httpx

from receiver.gateways.base import send


class Sender:
    """Sends gateway requests, at most as many at once to each gateway as its setting allows. Thread-safe."""

    def __init__(self, client: httpx.Client, concurrency: Mapping[str, int]) -> None:
        self._client = client
        self._slots = {name: BoundedSemaphore(number) for name, number in concurrency.items()}

    def send(self, gateway: str, request: httpx.Request) -> httpx.Response:
        """Send a request and return the whole answer; raises as `receiver.gateways.base.send` does."""
        with self._slots[gateway]:
            return send(self._client, request)
