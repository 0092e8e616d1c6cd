"""Connect safe from DNS rebinding, to checked addresses only; request images on connections that are kept.

httpcore asks a network backend for a connection and then starts TLS on it itself, with the name from the URL.
So the name stays what the certificate is checked against, while the caller alone decides where the
connection goes. httpcore's own timeouts begin again with each read, which a server that sends one byte at a
time can stretch for ever; here every read also has the deadline of the whole download. The package ssrfguard
does much of this and was not taken: it reaches into private parts of httpx and httpcore, which may change
with any release, and lets IPv4 addresses that ISATAP embeds through.

A kept connection is used only for the scheme, host and port that it was made for, and only by a request whose
own lookup gave the address that it leads to: with every address checked, it could be made anew right now. In
a pool by address alone, one name's request could go out over another name's TLS.

h11 parses what a server sends. A body of known length is read past it, as there is nothing to find in it and
to hand it through the parser takes longer than to hash it.
"""

import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from typing import Any, NamedTuple

import h11
import httpcore
import httpx

from receiver.download.lookup import CONNECT_S, Deadline
from receiver.download.ssrf import Address, Target
from receiver.errors import ImageUnavailable
from receiver.outbound.proxy import Proxy

MAX_TRIES = 4
"""Addresses tried for one name: its DNS decides how many there are, and each costs time."""

HEAD_BYTES = 256 * 1024
"""Of one response, interim ones included, and around its body; httpcore accepts heads up to 100 KiB."""

KEPT_S = 30.0
"""How long a connection that is not used is kept."""

KEPT = 16
"""How many connections that are not used are kept."""

READ_BYTES = 128 * 1024
MAX_HEAD_BYTES = 100 * 1024

Headers = list[tuple[str, str]]


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


class Response:
    """An answer, of which the head has come."""

    def __init__(self, stream: BoundedStream, parser: h11.Connection, head: h11.Response) -> None:
        self.status = head.status_code
        self.headers = httpx.Headers(head.headers.raw_items())
        self._stream = stream
        self._parser = parser
        self._clean = False

    def pieces(self) -> Iterator[bytes]:
        """Yield its body; raises httpcore's ReadError, RemoteProtocolError or TimeoutException."""
        # A transfer encoding overrides the length: RFC 9112, 6.3.
        if self.status == httpx.codes.OK and "transfer-encoding" not in self.headers:
            length = self.headers.get("content-length")
            if length is not None:  # h11 has made sure that it is one number
                return self._counted(int(length))
        return self._parsed()

    @property
    def reusable(self) -> bool:
        """Whether all of it was read, and another request may follow on its connection."""
        # h11 leaves this state where either side has said that the connection is to be closed.
        return self._clean and self._parser.our_state is h11.DONE

    def _counted(self, left: int) -> Iterator[bytes]:
        come, _ = self._parser.trailing_data
        piece = come[:left]
        while left:
            piece = piece or self._stream.read(min(left, READ_BYTES))
            if not piece:
                raise httpcore.RemoteProtocolError("The body ended before its length.")
            left -= len(piece)
            yield piece
            piece = b""
        self._clean = len(come) <= int(self.headers["content-length"])

    def _parsed(self) -> Iterator[bytes]:
        while not isinstance(event := _next_event(self._stream, self._parser), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif event is None:
                return
        self._clean = not self._parser.trailing_data[0]


class _Kept(NamedTuple):
    origin: tuple[str, str, int]
    stream: BoundedStream
    since_s: float


class Connections:
    """Makes connections and keeps them. Thread-safe."""

    def __init__(self, ssl_context: ssl.SSLContext, monotonic: Callable[[], float]) -> None:
        ssl_context.set_alpn_protocols(["http/1.1"])
        self._ssl_context = ssl_context
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._idle: list[_Kept] = []
        self._closed = False

    @contextmanager
    def get(self, target: Target, headers: Headers, backend: CheckedBackend) -> Iterator[Response]:
        """Send a GET request to an address of the backend; yield the answer, to be read within the block.

        Raises httpcore's errors, and TimeoutError.
        """
        stream, response = self._answered(target, headers, backend)
        try:
            yield response
        except BaseException:
            stream.close()
            raise
        if response.reusable:
            self._keep(target, stream)
        else:
            stream.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close what is kept, and keep no more."""
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
        for one in idle:
            one.stream.close()

    def _answered(
        self, target: Target, headers: Headers, backend: CheckedBackend
    ) -> tuple[BoundedStream, Response]:
        if (kept := self._take(target, backend)) is not None:
            try:
                return kept, _exchange(kept, target, headers)
            except (httpcore.ReadError, httpcore.RemoteProtocolError):
                pass  # the server may close one at any time: RFC 9112, 9.5
        stream = self._connect(target, backend)
        return stream, _exchange(stream, target, headers)

    def _connect(self, target: Target, backend: CheckedBackend) -> BoundedStream:
        stream = backend.connect_tcp(target.host, target.port)
        if target.scheme == "https":
            return stream.start_tls(self._ssl_context, target.host, CONNECT_S)
        return stream

    def _take(self, target: Target, backend: CheckedBackend) -> BoundedStream | None:
        origin = (target.scheme, target.host, target.port)
        while True:
            with self._lock:
                fitting = (one for one in self._idle if one.origin == origin and backend.leads_to(one.stream))
                if (found := next(fitting, None)) is None:
                    return None
                self._idle.remove(found)
            # What can be read before there was a request is its end, or nothing that was asked for.
            if not self._is_old(found) and not found.stream.get_extra_info("is_readable"):
                backend.bind(found.stream)
                return found.stream
            found.stream.close()

    def _keep(self, target: Target, stream: BoundedStream) -> None:
        kept = _Kept((target.scheme, target.host, target.port), stream, self._monotonic())
        with self._lock:
            idle = [kept, *self._idle]  # the newest first
            fresh = [one for one in idle if not self._is_old(one)]
            self._idle = [] if self._closed else fresh[:KEPT]
            dropped = [one for one in idle if one not in self._idle]
        for one in dropped:
            one.stream.close()

    def _is_old(self, one: _Kept) -> bool:
        return self._monotonic() - one.since_s > KEPT_S


def _next_event(stream: BoundedStream, parser: h11.Connection) -> h11.Event | None:
    """Return what comes next of an answer; None if it goes on in a protocol that was not asked for."""
    while True:
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as error:
            raise httpcore.RemoteProtocolError(str(error)) from error
        if isinstance(event, h11.Event):
            return event
        if event is h11.PAUSED:
            return None
        come = stream.read(READ_BYTES)
        if not come and parser.their_state is h11.SEND_RESPONSE:
            raise httpcore.RemoteProtocolError("The connection was closed without an answer.")
        parser.receive_data(come)


def _exchange(stream: BoundedStream, target: Target, headers: Headers) -> Response:
    """Send a request and return its answer; closes the connection if there is none."""
    try:
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        try:
            request = h11.Request(method="GET", target=target.request_target, headers=headers)
            sent = (parser.send(request) or b"") + (parser.send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError as error:
            raise httpcore.LocalProtocolError(str(error)) from error
        with suppress(httpcore.WriteError):  # a server may close its side before, and have answered
            stream.write(sent)
        return Response(stream, parser, _head(stream, parser))
    except BaseException:
        stream.close()
        raise


def _head(stream: BoundedStream, parser: h11.Connection) -> h11.Response:
    while not isinstance(event := _next_event(stream, parser), h11.Response):
        if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
            raise httpcore.RemoteProtocolError("The server changes to another protocol.")
    return event
