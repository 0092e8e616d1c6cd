"""Limit what requests may cost: a rate limit by token and address, the size and the time of a body."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Any

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import Message, Receive

from receiver.errors import BodyTooLarge, TooManyRequests, TooSlow
from storage.models import Clock

BODY_TIMEOUT = "DARKROOM_LIMITS__BODY_TIMEOUT"
MINUTE_MS = 60_000

MOST_KEYS = 20_000
"""How many keys a rate limit remembers, about 5 MB of them. Beyond that the one unseen for the longest time
is forgotten, so that no number of addresses can fill the memory."""

COUNTED_BYTES = 64 * 1024
"""A callback counts as one request, and as one more for each of these that its body has."""

LARGE = 64 * 1024
"""Callbacks have a few kilobytes; a body with more bytes than this waits for its turn."""
LARGE_AT_ONCE = 8
"""Together with the size limit this bounds what the bodies of all callbacks can take of the memory."""


class Rate:
    """A rate limit for each key: a bucket that holds one minute's worth and refills evenly.

    Per key it remembers one number: when the bucket will be full again (GCRA, the leaky bucket as a meter).
    """

    def __init__(self, per_minute: int, clock: Clock, *, most_keys: int = MOST_KEYS) -> None:
        """`per_minute` 0 means no limit."""
        self._each_ms = MINUTE_MS / per_minute if per_minute else 0.0
        self._clock = clock
        self._most_keys = most_keys
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._full_at)

    def take(self, key: Hashable, message: str) -> None:
        """Count one request; raise TooManyRequests with this message if it is over the limit."""
        now = self._clock()
        full_at = self._spent(key, now) + self._each_ms
        if full_at > now + MINUTE_MS:
            raise TooManyRequests(message, retry_after_s=ceil((full_at - now - MINUTE_MS) / 1000))
        self._remember(key, full_at, now)

    def charge(self, key: Hashable, units: int) -> None:
        """Count what was taken already. It is never refused; what follows may be, for a minute at most."""
        now = self._clock()
        self._remember(key, self._spent(key, now) + units * self._each_ms, now)

    def _spent(self, key: Hashable, now: int) -> float:
        full_at = self._full_at.get(key, 0.0)
        if full_at > now + MINUTE_MS:
            # The clock was set back; that must not shut a caller out for longer than a minute.
            self._full_at[key] = full_at = now + MINUTE_MS
        return max(full_at, now)

    def _remember(self, key: Hashable, full_at: float, now: int) -> None:
        known = self._full_at
        known[key] = min(full_at, now + MINUTE_MS)
        known.move_to_end(key)
        while known and (len(known) > self._most_keys or next(iter(known.values())) <= now):
            known.popitem(last=False)


class Limits:
    """The rate limits of the HTTP edge.

    A request with a valid token is counted for that token only: what others at its address do cannot shut
    it out, for all callbacks may come through one proxy. What comes without one is counted by address, so
    that strangers cost little time and few lines of log; the length of the tokens makes guessing hopeless.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        api_token: int,
        callback_token: int,
        bad_tokens: int,
        body_timeout_s: float,
    ) -> None:
        """Take the requests a minute of one API token, one callback token, and one address without either."""
        self.body_timeout_s = body_timeout_s
        self._api = Rate(api_token, clock)
        self._callbacks = Rate(callback_token, clock)
        self._strangers = Rate(bad_tokens, clock)

    def api(self, name: str) -> None:
        """Count a request with the API token of this name, or raise TooManyRequests."""
        self._api.take(name, "This API token has made more requests than it may in a minute; wait a little.")

    def callback(self, job_id: str) -> None:
        """Count a callback with a valid token, or raise TooManyRequests. A token has one job."""
        self._callbacks.take(job_id, "More callbacks came for this job than may in a minute; wait a little.")

    def callback_body(self, job_id: str, size: int) -> None:
        """Count the body of a callback that was accepted: large ones use the limit up sooner."""
        if size >= COUNTED_BYTES:
            self._callbacks.charge(job_id, size // COUNTED_BYTES)

    def stranger(self, connection: HTTPConnection) -> None:
        """Count a request without a valid token by its address, or raise TooManyRequests."""
        self._strangers.take(
            address_key(connection.client.host if connection.client else ""),
            "Too many requests without a valid token came from this address; wait a little.",
        )


def address_key(address: str) -> Hashable:
    """Return what requests from an address are counted under.

    That is the IPv4 address, or the /64 of an IPv6 address, which is what one customer is given. What a
    trusted proxy names instead of an address is counted under one key.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        return int(found.ipv4_mapped) if found.ipv4_mapped else (6, int(found) >> 64)
    return int(found)


async def read_body(
    headers: Mapping[str, str],
    receive: Receive,
    limit: int,
    *,
    within_s: float,
    large: Callable[[], Awaitable[None]] | None = None,
) -> bytes:
    """Return the body of a request, by the ASGI protocol, of at most `limit` bytes; it is never cut.

    Raises BodyTooLarge as soon as it is announced or found to be longer, TooSlow if it is not there after
    `within_s` seconds, and ClientDisconnect. `large` is awaited before more than `LARGE` bytes are read;
    meanwhile the sender is held back, and the time runs.
    """
    refuse_announced(headers, limit)
    first = _here_already(receive)
    if first is not None and _is_last(first) and len(first["body"]) <= min(LARGE, limit):
        whole: bytes = first["body"]
        return whole
    try:
        async with asyncio.timeout(within_s):
            return await _rest(first, receive, limit, large)
    except TimeoutError:
        raise TooSlow(f"The body must be here within {within_s:g} seconds ({BODY_TIMEOUT}).") from None


async def _rest(
    message: Message | None, receive: Receive, limit: int, large: Callable[[], Awaitable[None]] | None
) -> bytes:
    """Read a body on from its first message, if that is here already."""
    body = bytearray()
    while True:
        message = message or await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if large is not None and len(body) > LARGE:
            await large()
            large = None
        if _is_last(message):
            return bytes(body)
        message = None


def _here_already(receive: Receive) -> Message | None:
    """Return the next message if it is here, as that of a small body is; a deadline for it would cost more.

    One that has to be waited for is left alone: what was begun is taken back.
    """
    begun: Any = receive()
    try:
        begun.send(None)
    except StopIteration as done:
        message: Message = done.value
        return message
    begun.close()
    return None


def _is_last(message: Message) -> bool:
    return message["type"] == "http.request" and not message.get("more_body", False)


def refuse_announced(headers: Mapping[str, str], limit: int) -> None:
    """Raise BodyTooLarge if a request's own headers say that its body is over the limit."""
    announced = headers.get("content-length", "")
    # Text of 20 digits or more is not worth a conversion.
    if announced.isascii() and announced.isdigit() and (len(announced) > 19 or int(announced) > limit):
        raise _too_large(limit)


class LargeBodies:
    """Limits how many large bodies are read at once, one per owner, so that no owner keeps others out."""

    def __init__(self, at_once: int = LARGE_AT_ONCE) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._owners: set[str] = set()

    @asynccontextmanager
    async def one_of(self, owner: str) -> AsyncIterator[None]:
        """Wait for a turn and keep it; raise TooManyRequests if the owner has one already."""
        if owner in self._owners:
            raise TooManyRequests("One large body at a time, please; send this one again.")
        self._owners.add(owner)
        try:
            async with self._free:
                yield
        finally:
            self._owners.discard(owner)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body may have {limit} bytes at most.")
