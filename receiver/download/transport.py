"""Connect safe from DNS rebinding: look up once, and connect only to addresses that were checked.

httpcore asks a network backend for a connection and then starts TLS on it itself, with the name from the URL.
So the name stays what the certificate is checked against, while the caller alone decides where the
connection goes. httpcore's own timeouts begin again with each read, which a server that sends one byte at a
time can stretch for ever; here every read also has the deadline of the whole download.

The package ssrfguard does much of this and was not taken: it reaches into private parts of httpx and
httpcore, which may change with any release, and lets IPv4 addresses that ISATAP embeds through.
"""

import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from itertools import zip_longest
from threading import Thread
from typing import Any, NamedTuple

import httpcore

from receiver.download.ssrf import Address, parse_address
from receiver.errors import ImageUnavailable
from receiver.outbound.proxy import Proxy
from storage.network import failure

Resolver = Callable[[str], Sequence[str]]
"""Returns every address of a host name, best first. Raises OSError if it has none."""

CONNECT_S = 10.0
"""Timeout of one lookup, one connection, or one TLS handshake."""

MAX_TRIES = 4
"""Addresses tried for one name: its DNS decides how many there are, and each costs time."""

HEAD_BYTES = 256 * 1024
"""Of one response, interim ones included, and around its body; httpcore accepts heads up to 100 KiB."""


def system_resolver(host: str) -> list[str]:
    """Return the addresses that the system's resolver gives. Raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


class Deadline:
    """A point in time by which a download must be done."""

    def __init__(self, monotonic: Callable[[], float], seconds: float) -> None:
        self._monotonic = monotonic
        self._at = monotonic() + seconds

    def left(self, at_most: float) -> float:
        """Return the seconds that are left, `at_most` for one step. Raises TimeoutError if there are none."""
        left = self._at - self._monotonic()
        if left <= 0:
            raise TimeoutError("the time for the download is over")
        return min(left, at_most)


def lookup(host: str, resolve: Resolver, deadline: Deadline) -> list[Address]:
    """Return every address of a host name. Raises ImageUnavailable if it has none, and TimeoutError."""
    try:
        answers = _resolve(resolve, host, deadline.left(CONNECT_S))
    except TimeoutError:
        raise
    except (OSError, UnicodeError) as error:
        why = failure(error) if isinstance(error, OSError) else "is not a name that DNS could know"
        raise ImageUnavailable(f"{host} {why}.") from error
    if not answers:
        raise ImageUnavailable(f"{host} has no address.")
    return [parse_address(answer) for answer in answers]


def _resolve(resolve: Resolver, host: str, timeout_s: float) -> Sequence[str]:
    """Call a resolver in a thread, because the system's takes no timeout; one that hangs is abandoned."""
    found: Future[Sequence[str]] = Future()

    def run() -> None:
        try:
            found.set_result(resolve(host))
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            found.set_exception(error)

    Thread(target=run, name="darkroom-resolve", daemon=True).start()
    return found.result(timeout_s)


class ByteBudget:
    """How many bytes a server may send: its response's head, and a quarter more than the body.

    A limit on the body alone leaves out what HTTP puts around it, of which there can be any amount: interim
    answers without end, a chunk for every byte, trailers. Reading those costs far more time than an image.
    """

    def __init__(self, label: str) -> None:
        """`label` is the name of the response in the message."""
        self._label = label
        self._left = HEAD_BYTES

    def take(self, size: int) -> None:
        """Count what was received; raises ImageUnavailable if it is too much."""
        self._left -= size
        if self._left < 0:
            raise ImageUnavailable(f"{self._label} came with too many bytes around it.")

    def grant(self, size: int) -> None:
        """Allow for what was received of the body."""
        self._left += size + size // 4


class CheckedBackend(httpcore.NetworkBackend):
    """httpcore's network backend, pinned to checked addresses: the host name cannot be resolved again.

    A proxy is asked for the address too, and never for the name, which it would resolve by itself.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        deadline: Deadline,
        stall_s: float,
        budget: ByteBudget,
        proxy: Proxy | None = None,
    ) -> None:
        self._addresses = _interleaved(addresses)[:MAX_TRIES]
        self._deadline = deadline
        self._bounds = _Bounds(deadline, stall_s, budget)
        self._proxy = proxy
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline rules
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> "BoundedStream":
        """Connect to the first address that accepts; raise httpcore's NetworkError or TimeoutException.

        The name is not looked up: the second answer could differ (DNS rebinding).
        """
        proxy = self._proxy if self._proxy and self._proxy.leads_to(host, self._addresses) else None
        failed: Exception = httpcore.ConnectError("no address to connect to")
        for address in self._addresses:
            left = self._deadline.left(CONNECT_S)
            try:
                stream = (
                    proxy.tunnel(str(address), port, left)
                    if proxy
                    else self._inner.connect_tcp(str(address), port, left, local_address, socket_options)
                )
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProxyError) as error:
                failed = error
            else:
                return BoundedStream(stream, address, self._bounds)
        raise failed

    def leads_to(self, stream: "BoundedStream") -> bool:
        """Return whether a connection goes to one of the addresses that this one connects to."""
        return stream.address in self._addresses

    def bind(self, stream: "BoundedStream") -> None:
        """Have a connection that was made before keep to the bounds of this one."""
        stream.bounds = self._bounds


def _interleaved(addresses: Sequence[Address]) -> list[Address]:
    """Alternate the two address families, so that a dead one does not use up all tries (RFC 8305)."""
    best = [address for address in addresses if address.version == addresses[0].version]
    other = [address for address in addresses if address.version != addresses[0].version]
    return [address for pair in zip_longest(best, other) for address in pair if address]


class _Bounds(NamedTuple):
    deadline: Deadline
    stall_s: float
    budget: ByteBudget

    @property
    def step_s(self) -> float:
        return self.deadline.left(self.stall_s)


class BoundedStream(httpcore.NetworkStream):
    """A connection with a deadline for every step and a budget of bytes."""

    def __init__(self, inner: httpcore.NetworkStream, address: Address, bounds: _Bounds) -> None:
        """`address` is the one that it goes to."""
        self.address = address
        self.bounds = bounds
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the deadline rules
        """Read what comes next, so many bytes at most; none at the end."""
        received = self._inner.read(max_bytes, self.bounds.step_s)
        self.bounds.budget.take(len(received))
        return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - the deadline rules
        """Write all of it."""
        self._inner.write(buffer, self.bounds.step_s)

    def close(self) -> None:
        """Close it."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - the deadline rules
    ) -> "BoundedStream":
        """Return the same connection with TLS; closes this one if that fails."""
        try:
            left = self.bounds.deadline.left(CONNECT_S)
        except TimeoutError:
            self.close()  # httpcore does not own the connection before this returns
            raise
        secure = self._inner.start_tls(ssl_context, server_hostname, left)
        return BoundedStream(secure, self.address, self.bounds)

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore knows of it by that name: `is_readable`."""
        return self._inner.get_extra_info(info)
