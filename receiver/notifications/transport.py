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

from receiver.download.ssrf import Address, Target
from receiver.download.transport import ByteBudget, CheckedBackend, Deadline, Resolver, system_resolver
from receiver.errors import EndpointGone, EndpointRefused, EndpointUnavailable, ImageUnavailable
from receiver.gateways.parsing import retry_after
from receiver.notifications.url_policy import NotifyPolicy, read
from receiver.outbound.proxy import Proxy
from storage.network import failure

MAX_ANSWER_BYTES = 4096
"""Of an answer's body as much is read, so that its sender is done, and dropped."""

_WAIT = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE})


_BROKEN = (
    *(httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException),
    *(TimeoutError, ImageUnavailable),
)


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
        deadline = Deadline(self.monotonic, self.timeout_s)
        target = read(url)
        with _unavailable(target, self.timeout_s):
            addresses = self.policy.route(target, self.resolve, deadline)
            status, told = self._exchange(target, addresses, deadline, headers, body)
        _judge(target, status, told)

    def _exchange(
        self,
        target: Target,
        addresses: Sequence[Address],
        deadline: Deadline,
        headers: Mapping[str, str],
        body: bytes,
    ) -> tuple[int, httpx.Headers]:
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
            # What it answers is told by the status alone, however the rest of it goes.
            with suppress(*_BROKEN):
                _drop(response)
            return response.status, httpx.Headers(response.headers)


def _drop(response: httpcore.Response) -> None:
    left = MAX_ANSWER_BYTES
    for chunk in response.iter_stream():
        left -= len(chunk)
        if left <= 0:
            return


def _judge(target: Target, status: int, headers: httpx.Headers) -> None:
    if httpx.codes.is_success(status):
        return
    told = f"{target.authority} answered {status}"
    if status == httpx.codes.GONE:
        raise EndpointGone(f"{told}: it wants no more notifications.")
    if httpx.codes.is_redirect(status):
        raise EndpointRefused(f"{told}, a redirect, which is never followed: change the notify_url.")
    wait = retry_after(headers) if status in _WAIT and "retry-after" in headers else 0
    raise EndpointRefused(f"{told}.", retry_after_s=wait)


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
