"""How many requests one token or one address may make; judged before anything of a body is read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from math import ceil

from starlette.requests import HTTPConnection

from receiver.errors import TooManyRequests
from receiver.settings import LimitSettings
from storage.models import Clock

Network = IPv4Network | IPv6Network

MINUTE_MS = 60_000

MOST_KEYS = 20_000
"""How many keys a limit remembers, about 5 MB of them. Beyond that the one unseen for the longest time is
forgotten, so that no number of addresses can fill the memory."""

COUNTED_BYTES = 64 * 1024
"""A callback counts as one request, and as one more for each of these that its body has."""


class Rate:
    """So many a minute for each key: a bucket that holds one minute's worth and fills up evenly.

    Per key it remembers one number: when the bucket will be full again (GCRA, the leaky bucket as a meter).
    """

    def __init__(self, per_minute: int, clock: Clock, *, most_keys: int = MOST_KEYS) -> None:
        """`per_minute` 0 means no limit."""
        self._each_ms = MINUTE_MS / per_minute if per_minute else 0.0
        self._clock = clock
        self._most_keys = most_keys
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        """How many keys are remembered."""
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
            # The clock was set back; that must not shut anybody out for longer than a minute.
            self._full_at[key] = full_at = now + MINUTE_MS
        return max(full_at, now)

    def _remember(self, key: Hashable, full_at: float, now: int) -> None:
        known = self._full_at
        known[key] = min(full_at, now + MINUTE_MS)
        known.move_to_end(key)
        while known and (len(known) > self._most_keys or next(iter(known.values())) <= now):
            known.popitem(last=False)


class Limits:
    """The limits of the HTTP edge.

    A request with a true token is counted for that token only: what others at its address do cannot shut
    it out, for all callbacks may come through one proxy. What comes without one is counted by address, so
    that strangers cost little time and few lines of log; that guessing is hopeless is owed to the length
    of the tokens.
    """

    def __init__(self, settings: LimitSettings, trusted_proxies: Iterable[str], clock: Clock) -> None:
        self.body_timeout_s = settings.body_timeout
        self._trusted = [ip_network(network) for network in trusted_proxies]
        self._api = Rate(settings.api_token, clock)
        self._callbacks = Rate(settings.callback_token, clock)
        self._strangers = Rate(settings.bad_tokens, clock)

    def api(self, name: str) -> None:
        """Count a request with the API token of this name, or raise TooManyRequests."""
        self._api.take(name, "This API token has made more requests than it may in a minute; wait a little.")

    def callback(self, job_id: str) -> None:
        """Count a callback with a true token, or raise TooManyRequests. A token has one job."""
        self._callbacks.take(job_id, "More callbacks came for this job than may in a minute; wait a little.")

    def callback_body(self, job_id: str, size: int) -> None:
        """Count the body of a callback that was let in: large ones use the limit up sooner."""
        self._callbacks.charge(job_id, size // COUNTED_BYTES)

    def stranger(self, connection: HTTPConnection) -> None:
        """Count a request without a valid token by its address, or raise TooManyRequests."""
        peer = connection.client.host if connection.client else None
        forwarded = connection.headers.getlist("x-forwarded-for")
        self._strangers.take(
            origin(peer, forwarded, self._trusted),
            "Too many requests without a valid token came from this address; wait a little.",
        )


def origin(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> Hashable:
    """Whom to count a request to: an IPv4 address, or a /64 of IPv6, which is what one customer is given.

    That is the peer. Only if it is a trusted proxy, the `X-Forwarded-For` lines count, read from the right:
    each proxy appends whom it heard from, so the first address that is no trusted proxy is the last one
    that cannot have been invented. Where that is no address, the peer counts.
    """
    near = _address(peer or "")
    if near is None:
        return peer
    if _is_among(near, trusted):
        for text in reversed(",".join(forwarded).split(",")):
            far = _address(text.strip())
            if far is None or not _is_among(far, trusted):
                return _group(far or near)
    return _group(near)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _is_among(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _group(address: IPv4Address | IPv6Address) -> Hashable:
    return (6, int(address) >> 64) if isinstance(address, IPv6Address) else (4, int(address))
