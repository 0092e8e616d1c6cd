"""Download an image, safe from SSRF and within limits, to a spooled file, hashing as it streams.

The link is hostile until shown otherwise. Each redirect hop is parsed (`receiver.download.ssrf`), looked up
once (`receiver.download.lookup`), checked on every address that its name has, and connected to on exactly
those, or requested on a connection that leads to one of them already (`receiver.download.connections`). httpx
has no public way to choose where a connection goes. A proxy gets the checked address: it would resolve the
name again, which would allow DNS rebinding.
"""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

import httpcore
import httpx

from receiver import errors
from receiver.download import unwrap
from receiver.download.connections import ByteBudget, CheckedBackend, Connections, Headers, Response
from receiver.download.lookup import CONNECT_S, Deadline, Resolver, lookup, system_resolver
from receiver.download.refusals import MAX_READ_BYTES, quoted
from receiver.download.ssrf import (
    Address,
    Network,
    Target,
    address_allowed,
    check_addresses,
    check_target,
)
from receiver.outbound.proxy import Proxy
from storage.errors import Corrupt
from storage.media.formats import CutShort
from storage.media.inspect import ImageFacts, TooManyPixels, inspect, is_complete, is_image
from storage.network import failure

_MIB = 1024 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({404, 410})
# "Not now" by RFC 9110, RFC 8470 and RFC 6585. Any other 4xx will be the same next time.
_TRY_LATER = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class DownloadPolicy:
    """Limits of downloads, and the allow-list of networks."""

    allow_networks: tuple[Network, ...] = ()
    """Allow-list: reached although forbidden, over plain http and on any port too. For the sandbox."""
    max_bytes: int = 64 * _MIB
    max_pixels: int = 100_000_000
    timeout_s: float = 60
    """For the whole download, lookups and redirects included."""
    drip_bytes: int = 1024
    """Fewest bytes a second, on average over each `drip_seconds`."""
    drip_seconds: float = 20
    max_redirects: int = 3
    spool_bytes: int = _MIB
    """Kept in memory before the rest goes to disk."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """One whole image. `file` is at 0 and is closed with the context that gave it."""

    file: BinaryIO
    sha256: str
    """In hex."""
    bytes: int
    facts: ImageFacts
    declared_type: str | None
    """The Content-Type header; `facts.media_type` is the true one."""
    source_url: str
    """The requested URL, without its query."""
    wrappers: tuple[str, ...] = ()
    """What lay around it, outermost first: `gzip`."""
    complete: bool = True
    """Whether its end was found."""


class EndMissing(errors.ImageTruncated):
    """All that was announced came, but the image has no end; `sha256` is of what came."""

    def __init__(self, message: str, sha256: str) -> None:
        self.sha256 = sha256
        super().__init__(f"{message} (SHA-256 {sha256})")


class Downloader:
    """Downloads images. Thread-safe."""

    def __init__(
        self,
        policy: DownloadPolicy,
        *,
        resolve: Resolver = system_resolver,
        monotonic: Callable[[], float] = time.monotonic,
        ssl_context: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
        directory: Path | None = None,
    ) -> None:
        """`directory` is for the temporary files of large images; by default the system's."""
        self._policy = policy
        self._resolve = resolve
        self._monotonic = monotonic
        self._connections = Connections(ssl_context or httpx.create_ssl_context(), monotonic)
        self._proxy = proxy
        self._directory = None if directory is None else str(directory)
        self._closed = threading.Event()

    @contextmanager
    def fetch(
        self, target: Target, *, hosts: Sequence[str] = (), also: Collection[str] = (), unended: str = ""
    ) -> Iterator[Fetched]:
        """Download an image. `hosts` is the allow-list of hosts, subdomains included; empty allows any.

        What is http outside of the allowed networks is requested over https. `also` names the extensions of
        formats that are accepted beside the usual ones. A JPEG without an end raises EndMissing, unless
        its SHA-256 is `unended`.

        Raises ForbiddenAddress, ImageExpired, ImageUnavailable, ImageTooLarge, ImageTruncated or NotAnImage;
        Unready if the disk is full. Messages name host and path only: a query may hold a signature.
        """
        with ExitStack() as opened:
            body = self._download(target, hosts, self._spool(opened))
            yield self._inspected(body, also, unended, opened)

    @contextmanager
    def unpack(self, data_uri: str, *, also: Collection[str] = ()) -> Iterator[Fetched]:
        """Read an image from a data URI, within the limits; raises as `fetch` does. It has no source URL."""
        label, start = "The image in the gateway's answer", data_uri.find(",") + 1
        head = data_uri[: max(start - 1, 0)][:MAX_READ_BYTES]
        with ExitStack() as opened:
            declared_type = _shown(head.removeprefix("data:").partition(";")[0])
            body = _Body(self._spool(opened), "", 0, label, declared_type, (), whole=True)
            pieces = unwrap.data(data_uri, start, is_base64=head.endswith(";base64"))
            try:
                body = self._copied(body, pieces, opened)
            except unwrap.NotWrapped as error:
                raise errors.NotAnImage(f"{label} is not sound base64: {error}.") from error
            # It is the same at every try, so that waiting would show nothing.
            yield self._inspected(body, also, None, opened)

    @property
    def closed(self) -> bool:
        """Whether downloads are aborted because the service stops."""
        return self._closed.is_set()

    def close(self) -> None:
        """Abort running downloads, at their next bytes, with ImageUnavailable; refuse new ones."""
        self._closed.set()
        self._connections.close()

    def _spool(self, opened: ExitStack) -> BinaryIO:
        spool = opened.enter_context(
            SpooledTemporaryFile(  # noqa: SIM115 - it is entered here
                max_size=self._policy.spool_bytes, dir=self._directory
            )
        )
        return cast("BinaryIO", spool)

    def _download(self, first: Target, hosts: Sequence[str], file: BinaryIO) -> _Body:
        deadline = Deadline(self._monotonic, self._policy.timeout_s)
        target, source_url = first, ""
        for _ in range(self._policy.max_redirects + 1):
            self._check_open(target.label)
            with _unavailable(target, self._policy.timeout_s):
                target, addresses = self._route(target, hosts, deadline)
                source_url = source_url or target.source_url
                response = self._request(target, addresses, deadline, file)
            if isinstance(response, _Body):
                return replace(response, source_url=source_url)
            target = response
        most = self._policy.max_redirects
        raise errors.ImageUnavailable(f"{first.label} redirects more than {most} times.")

    def _route(
        self, target: Target, hosts: Sequence[str], deadline: Deadline
    ) -> tuple[Target, list[Address]]:
        """Return what to request and the addresses to connect to, from one lookup (against DNS rebinding)."""
        networks = self._policy.allow_networks
        if not networks:  # before a lookup that a hostile name server would see
            target = target.over_https()
            check_target(target, hosts)
        try:
            addresses = [target.address] if target.address else lookup(target.host, self._resolve, deadline)
        except errors.ImageUnavailable:
            check_target(target.over_https(), hosts)  # which says more than that it has no address
            raise
        if not all(address_allowed(address, networks) for address in addresses):
            target = target.over_https()
        check_addresses(target, addresses, hosts, networks)
        return target, addresses

    def _request(
        self, target: Target, addresses: Sequence[Address], deadline: Deadline, file: BinaryIO
    ) -> _Body | Target:
        """Request one hop; return the received body, or the target of the redirect."""
        budget = ByteBudget(target.host)
        stall_s = self._policy.drip_seconds
        backend = CheckedBackend(addresses, deadline, stall_s, budget, self._proxy)
        with self._connections.get(target, _headers(target), backend) as response:
            headers = response.headers
            if response.status in _REDIRECTS and "location" in headers:
                return target.redirect(headers["location"])
            if response.status != httpx.codes.OK:
                raise _refused(target, response.status, _beginning(response, budget))
            announced = self._check_headers(target, headers)
            try:
                size, sha256 = self._receive(target, response, budget, file)
            except (httpcore.ReadError, httpcore.RemoteProtocolError) as error:
                raise errors.ImageTruncated(f"{target.label} broke off before its end.") from error
            if size == 0 or announced not in (size, None):
                raise errors.ImageTruncated(f"{target.label} ended after {size} bytes.")
            announced_type = _shown(headers.get("content-type"))
            encodings = unwrap.tokens(headers.get("content-encoding", ""))
            whole = announced is not None or "transfer-encoding" in headers
            return _Body(file, sha256, size, target.label, announced_type, encodings, whole=whole)

    def _check_headers(self, target: Target, headers: httpx.Headers) -> int | None:
        length = headers.get("content-length")
        # A transfer encoding overrides the length: RFC 9112, 6.3.
        if length is None or "transfer-encoding" in headers:
            return None
        if int(length) > self._policy.max_bytes:
            raise self._too_large(target.label)
        return int(length)

    def _receive(
        self, target: Target, response: Response, budget: ByteBudget, file: BinaryIO
    ) -> tuple[int, str]:
        digest = hashlib.sha256()
        size = 0
        pace = _Pace(self._monotonic, self._policy)
        for chunk in response.pieces():
            size += len(chunk)
            budget.grant(len(chunk))
            if size > self._policy.max_bytes:
                raise self._too_large(target.label)
            self._check_open(target.label)
            pace.check(target, size)
            digest.update(chunk)
            with _disk():
                file.write(chunk)
        with _disk():
            file.flush()
        return size, digest.hexdigest()

    def _inspected(
        self, body: _Body, also: Collection[str], unended: str | None, opened: ExitStack
    ) -> Fetched:
        """Return the image in a body; `unended` is as in `fetch`, and None allows any to have no end."""
        body, wrappers = self._unwrapped(body, also, opened)
        try:
            facts = inspect(body.file, max_pixels=self._policy.max_pixels, also=also)
        except TooManyPixels as error:
            raise errors.ImageTooLarge(f"{body.label}: {error} (DARKROOM_DOWNLOAD__MAX_PIXELS)") from error
        except CutShort as error:
            raise errors.ImageTruncated(f"{body.label}: {error}") from error
        except Corrupt as error:
            raise errors.NotAnImage(f"{body.label}: {error}") from error
        complete = _has_end(body, facts)
        if not complete and unended not in (body.sha256, None):
            raise EndMissing(f"{body.label} ends in the middle of the image", body.sha256)
        return Fetched(
            file=body.file,
            sha256=body.sha256,
            bytes=body.bytes,
            facts=facts,
            declared_type=body.declared_type,
            source_url=body.source_url,
            wrappers=wrappers,
            complete=complete,
        )

    def _unwrapped(
        self, body: _Body, also: Collection[str], opened: ExitStack
    ) -> tuple[_Body, tuple[str, ...]]:
        """Return the image inside of what came, and what lay around it."""
        wrappers: list[str] = []
        announced = list(body.encodings)
        for _ in range(unwrap.MAX_LAYERS):
            body.file.seek(0)
            head = body.file.read(unwrap.HEAD_BYTES)
            found = None if is_image(head, also=also) else unwrap.find(head, announced)
            if found is None:
                break
            wrappers.append(found[0])
            try:
                body = self._copied(body, found[1](body.file), opened)
                body = replace(body, whole=body.whole or found[0] in unwrap.ENDED)
            except unwrap.NotWrapped as error:
                raise errors.NotAnImage(f"{body.label} is not sound {found[0]}: {error}.") from error
        body.file.seek(0)
        return body, tuple(wrappers)

    def _copied(self, body: _Body, pieces: Iterator[bytes], opened: ExitStack) -> _Body:
        """Write what is inside of a body to a file of its own, within the limit of bytes."""
        file, digest, size = self._spool(opened), hashlib.sha256(), 0
        for piece in pieces:
            size += len(piece)
            if size > self._policy.max_bytes:
                raise self._too_large(body.label)
            self._check_open(body.label)
            digest.update(piece)
            with _disk():
                file.write(piece)
        return replace(body, file=file, sha256=digest.hexdigest(), bytes=size)

    def _check_open(self, label: str) -> None:
        if self._closed.is_set():
            raise errors.ImageUnavailable(f"{label} was aborted: the service is stopping.")

    def _too_large(self, label: str) -> errors.ImageTooLarge:
        return errors.ImageTooLarge(
            f"{label} has more than {self._policy.max_bytes} bytes (DARKROOM_DOWNLOAD__MAX_BYTES)."
        )


@dataclass(frozen=True, slots=True)
class _Body:
    file: BinaryIO
    sha256: str
    bytes: int
    label: str
    declared_type: str | None
    encodings: Sequence[str]
    source_url: str = ""
    whole: bool = False
    """Whether as much came as was announced; without an announcement, nobody knows."""


class _Pace:
    """Enforces a minimum speed (against slow drips)."""

    def __init__(self, monotonic: Callable[[], float], policy: DownloadPolicy) -> None:
        self._monotonic = monotonic
        self._seconds = policy.drip_seconds
        self._least = policy.drip_bytes * policy.drip_seconds
        self._since, self._size = monotonic(), 0

    def check(self, target: Target, size: int) -> None:
        """Raise ImageUnavailable if too little came in the last `drip_seconds`."""
        now = self._monotonic()
        if now - self._since < self._seconds:
            return
        if size - self._size < self._least:
            raise errors.ImageUnavailable(
                f"{target.label} came too slowly: under {self._least:g} bytes in {self._seconds:g} seconds."
            )
        self._since, self._size = now, size


def _has_end(body: _Body, facts: ImageFacts) -> bool:
    """Return whether an image has its end; raise ImageTruncated unless it is a JPEG of which all came.

    Cameras and editors leave the end mark of a JPEG away; another format without its end is cut short.
    """
    complete = is_complete(body.file, facts)
    if complete is None and not body.whole:
        raise errors.ImageTruncated(
            f"{body.label} came without its length, which alone tells whether {facts.media_type} is whole."
        )
    if complete is False and not (body.whole and facts.extension == "jpg"):
        raise errors.ImageTruncated(f"{body.label} ends in the middle of the image.")
    return complete is not False


def _headers(target: Target) -> Headers:
    # `*/*`, because a list of formats would have some servers convert the original.
    return [
        ("Host", target.authority),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
        ("User-Agent", "darkroom"),
    ]


def _refused(target: Target, status: int, body: bytes) -> errors.ImageError:
    message = f"{target.label} returned HTTP {status}.{quoted(body, target.query)}"
    if status in _GONE:
        return errors.ImageExpired(message)
    # Usual for a dead link too: a retry of this request will not succeed, and a fresh link may.
    if httpx.codes.is_client_error(status) and status not in _TRY_LATER:
        return errors.LinkRefused(message)
    return errors.ImageUnavailable(message)


def _beginning(response: Response, budget: ByteBudget) -> bytes:
    """Return the first bytes of a body that is only to be quoted; nothing if they cannot be read."""
    budget.grant(MAX_READ_BYTES)
    with suppress(httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, TimeoutError):
        return next(response.pieces(), b"")[:MAX_READ_BYTES]
    return b""


@contextmanager
def _unavailable(target: Target, timeout_s: float) -> Iterator[None]:
    try:
        yield
    except (httpcore.TimeoutException, TimeoutError) as error:
        raise errors.ImageUnavailable(
            f"{target.label} took too long: it has {timeout_s:g} seconds in all, {CONNECT_S:g} of "
            "them to connect (DARKROOM_DOWNLOAD__TIMEOUT)."
        ) from error
    except (httpcore.NetworkError, httpcore.ProxyError) as error:
        raise errors.ImageUnavailable(f"{target.authority} {failure(error)}.") from error
    except httpcore.ProtocolError as error:  # its text quotes the server, which may quote the query
        raise errors.ImageUnavailable(f"{target.label} returned malformed HTTP.") from error


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.Unready(f"The disk for downloads cannot store an image: {error.strerror}.") from error


def _shown(value: str | None) -> str | None:
    return value[:100] if value and value.isprintable() else None
