"""Send requests to gateways, with a concurrency limit for each."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from threading import Lock

import httpx

from receiver.errors import GatewayUnavailable, OutcomeUnknown
from receiver.gateways.image_answers import as_json
from storage.models import Job, JobError
from storage.network import failure

NOT_SENT = (
    *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout),
    *(httpx.ProxyError, httpx.UnsupportedProtocol),
)
MAX_BYTES = 32 * 1024 * 1024
"""Of one response, which may hold images itself."""
BUSY_MS = 250
"""When a job is tried again whose gateway had no slot free."""


class GatewayClient:
    """Sends requests within each gateway's concurrency limit. Thread-safe.

    No thread waits for a slot: a slow gateway would block every worker, and with them the other gateways.
    """

    def __init__(self, client: httpx.Client, concurrency: Mapping[str, int]) -> None:
        self._client = client
        self._lock = Lock()
        self.limits = dict(concurrency)
        """How many requests there may be to each gateway at once."""
        self._free = dict(concurrency)

    @contextmanager
    def reserve(self, gateway: str) -> Iterator[bool]:
        """Reserve one of a gateway's slots for the block; yields whether one was free."""
        with self._lock:
            free = self._free[gateway] > 0
            self._free[gateway] -= free
        try:
            yield free
        finally:
            with self._lock:
                self._free[gateway] += free

    def full(self) -> list[str]:
        """Return the gateways that have no slot free."""
        with self._lock:
            return [gateway for gateway, free in self._free.items() if free <= 0]

    def send(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the whole response, whatever its status; see `as_json`.

        Raises GatewayUnavailable if the request certainly did not arrive, and OutcomeUnknown if it may have:
        the difference decides whether a submission may be sent again. A response over `MAX_BYTES` is cut off
        and counts as unknown.
        """
        host = request.url.host
        content = bytearray()
        try:
            with closing(self._client.send(request, stream=True)) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MAX_BYTES:
                        raise OutcomeUnknown(f"{host} sent more than {MAX_BYTES} bytes.")
        except NOT_SENT as error:
            raise GatewayUnavailable(f"{host} {_why(error)}.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise OutcomeUnknown(f"{host} sent no whole response: it {_why(error)}.") from error
        headers = [each for each in response.headers.multi_items() if each[0] != "content-encoding"]
        return httpx.Response(
            response.status_code, headers=headers, content=as_json(bytes(content)), request=request
        )


def _why(error: Exception) -> str:
    if isinstance(error, httpx.PoolTimeout):
        return "was not asked: all connections are in use"
    if isinstance(error, httpx.DecodingError):
        return "sent a compressed body that is damaged"
    return failure(error)


def not_configured(job: Job) -> JobError:
    """Return the error of a job whose gateway lost its API key in the settings."""
    message = f"{job.gateway} has no API key in the settings. Set it again, and the job continues."
    return JobError("unknown_gateway", message, "operator")
