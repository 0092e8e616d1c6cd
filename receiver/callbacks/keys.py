"""Fetch the public keys with which some gateways sign their callbacks, and keep them. Thread-safe."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import structlog

from receiver.errors import GatewayError
from receiver.gateways.base import Gateway
from storage.models import Clock

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger("darkroom.keys")

LIFE_MS = 24 * 3600 * 1000
"""After so long keys are fetched again: https://fal.ai/docs/documentation/model-apis/inference/webhooks."""
LEAST_MS = 60_000
"""Between two fetches, however many callbacks are signed with a key that is not known."""


class PublicKeys:
    """A cache of keys by gateway. Nobody waits for a fetch: until it is done, callbacks are not proven.

    Keys outlive every fetch that fails.
    """

    def __init__(
        self,
        gateways: Mapping[str, Gateway],
        send: Callable[[httpx.Request], httpx.Response],
        clock: Clock,
        *,
        used: Iterable[str],
    ) -> None:
        """`send` raises GatewayError, like `GatewayClient.send`."""
        self._used = tuple(used)
        self._gateways = {name: one for name, one in gateways.items() if one.has_keys}
        self._send = send
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, tuple[bytes, ...]] = dict.fromkeys(self._gateways, ())
        self._fetched_at: dict[str, int] = {}
        self._tried_at: dict[str, int] = {}

    def start(self) -> None:
        """Begin to fetch the keys of the gateways that are used; those of others wait for a callback."""
        for name in self._used:
            self.refetch(name)

    def of(self, name: str) -> tuple[bytes, ...]:
        """Return a gateway's keys as they are known now; begin to fetch them if they are old or missing."""
        if name not in self._gateways:
            return ()
        fetched_at = self._fetched_at.get(name)
        if fetched_at is None or not 0 <= self._clock() - fetched_at < LIFE_MS:
            self.refetch(name)
        return self._keys[name]

    def refetch(self, name: str) -> bool:
        """Begin to fetch a gateway's keys again, unless that was tried a moment ago; return whether it does.

        For a callback whose signature fits none of them: the gateway may have changed its keys.
        """
        if name not in self._gateways:
            return False
        with self._lock:
            now, before = self._clock(), self._tried_at.get(name)
            if before is not None and 0 <= now - before < LEAST_MS:
                return False
            self._tried_at[name] = now
        threading.Thread(target=self._fetch, args=(name,), name="gateway-keys", daemon=True).start()
        return True

    def _fetch(self, name: str) -> None:
        gateway = self._gateways[name]
        request = gateway.keys_request()
        assert request is not None
        try:
            found = gateway.read_keys(self._send(request))
        except GatewayError as error:
            log.warning("keys not fetched", gateway=name, why=str(error))
            return
        if not found:
            log.warning("keys not fetched", gateway=name, why="the answer has no Ed25519 key")
            return
        self._keys[name], self._fetched_at[name] = found, self._clock()
        log.info("keys fetched", gateway=name, keys=len(found))
