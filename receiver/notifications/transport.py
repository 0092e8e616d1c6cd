"""Post one notification to the checked address (SSRF, DNS rebinding), without redirects, within a deadline.

A proxy gets the checked address: it would resolve the name again.
"""

import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpcore
import httpx

from receiver.download.connections import ByteBudget, CheckedBackend
from receiver.download.lookup import Deadline, Resolver, system_resolver
from receiver.download.ssrf import Address, Target
from receiver.errors import EndpointGone, EndpointRefused, EndpointUnavailable, ImageUnavailable
from receiver.gateways.parsing import retry_after
from receiver.notifications.url_policy import NotifyPolicy, read
from receiver.outbound.proxy import Proxy
from storage.network import failure

MAX_ANSWER_BYTES = 4096
"""Of an answer's body as much is read, so that its sender is done."""

_WAIT = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE})


_BROKEN = (
    *(httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException),
    *(TimeoutError, ImageUnavailable),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What an application answered. `body`: at most so much as is read of it."""

    authority: str
    status: int
    headers: httpx.Headers
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text on one line."""
        return " ".join(self.body.decode("utf-8", "replace").split())

    def check(self) -> None:
        """Raise EndpointRefused or EndpointGone unless the status is 2xx."""
        if httpx.codes.is_success(self.status):
            return
        answered = f"{self.authority} answered {self.status}"
        if self.status == httpx.codes.GONE:
            raise EndpointGone(f"{answered}: it wants no more notifications.")
        if httpx.codes.is_redirect(self.status):
            raise EndpointRefused(f"{answered}, a redirect, which is never followed: change the notify_url.")
        waits = self.status in _WAIT and "retry-after" in self.headers
        raise EndpointRefused(f"{answered}.", retry_after_s=retry_after(self.headers) if waits else 0)


@dataclass(frozen=True, slots=True)
class Poster:
    """Posts notifications. Thread-safe; keeps no connection between two."""

    policy: NotifyPolicy
    timeout_s: float
    """For the whole exchange, lookup included."""
    resolve: Resolver = system_resolver
    monotonic: Callable[[], float] = time.monotonic
    ssl_context: ssl.SSLContext = field(default_factory=httpx.create_ssl_context)
    proxy: Proxy | None = None

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """Post a body; return once the application has answered 2xx.

        Raises EndpointForbidden, EndpointUnavailable, EndpointRefused or EndpointGone, naming the host only.
        """
        self.exchange(url, headers, body).check()

    def exchange(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Post a body and return the answer, whatever its status.

        Raises EndpointForbidden or EndpointUnavailable, naming the host only.
        """
        deadline = Deadline(self.monotonic, self.timeout_s)
        target = read(url)
        with _unavailable(target, self.timeout_s):
            addresses = self.policy.route(target, self.resolve, deadline)
            return self._exchange(target, addresses, deadline, headers, body)

    def _exchange(
        self,
        target: Target,
        addresses: Sequence[Address],
        deadline: Deadline,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Reply:
        budget = ByteBudget(target.authority)
        backend = CheckedBackend(addresses, deadline, self.timeout_s, budget, self.proxy)
        url = httpcore.URL(
            scheme=target.scheme, host=target.host, port=target.port, target=target.request_target
        )
        connection = httpcore.HTTPConnection(url.origin, self.ssl_context, network_backend=backend)
        sent = [("Host", target.authority), ("Content-Length", str(len(body))), ("Connection", "close")]
        with (
            connection,
            connection.stream("POST", url, headers=[*sent, *headers.items()], content=body) as response,
        ):
            found = httpx.Headers(response.headers)
            return Reply(target.authority, response.status, found, _beginning(response))


def _beginning(response: httpcore.Response) -> bytes:
    """Return the beginning of a body, or of what came of it: the status alone decides."""
    found = bytearray()
    with suppress(*_BROKEN):
        for chunk in response.iter_stream():
            found += chunk
            if len(found) >= MAX_ANSWER_BYTES:
                break
    return bytes(found[:MAX_ANSWER_BYTES])


@contextmanager
def _unavailable(target: Target, timeout_s: float) -> Iterator[None]:
    where = target.authority
    try:
        yield
    except ImageUnavailable as error:  # of the lookup, or for an answer without end
        raise EndpointUnavailable(str(error)) from error
    except (httpcore.TimeoutException, TimeoutError) as error:
        raise EndpointUnavailable(
            f"{where} took longer than {timeout_s:g} seconds (DARKROOM_NOTIFY__TIMEOUT)."
        ) from error
    except (httpcore.NetworkError, httpcore.ProxyError) as error:
        raise EndpointUnavailable(f"{where} {failure(error)}.") from error
    except httpcore.ProtocolError as error:
        raise EndpointUnavailable(f"{where} gave no HTTP answer that can be read.") from error
