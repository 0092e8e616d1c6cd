"""The `Gateway` port, its neutral words, and the one function that sends a gateway request.

An adapter does no I/O: it builds `httpx.Request` values and reads `httpx.Response` values, so that every
odd answer a gateway can give is a short test without a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import httpx

from receiver.errors import GatewayUnavailable, OutcomeUnknown
from storage.models import ImageRef, Job, JobRequest, Verdict


class State(StrEnum):
    """What a gateway says of a job, whatever its own words for it are."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Supports:
    """What can be expressed to a gateway. A parameter that cannot is refused, never dropped in silence."""

    idempotency: bool
    """Whether a submission sent twice with one key is taken once."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A gateway's word that it took a job."""

    gateway_job_id: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The neutral reading of a gateway's answer, from a callback or a poll.

    `gateway_job_id` is None only where the answer names none. `reply` is the answer as it came, decoded.
    """

    state: State
    gateway_job_id: str | None
    images: tuple[ImageRef, ...] = ()
    model: str | None = None
    seed: str | None = None
    credits: float | None = None
    error: str | None = None
    reply: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class JobList:
    """A page of a gateway's own list of jobs, newest first."""

    completions: Mapping[str, Completion]
    """By the gateway's job id."""
    next_cursor: str | None


class Gateway(Protocol):
    """One hosted gateway. Implementations hold settings and nothing that changes."""

    name: str
    """The word for it in URLs, settings and the ledger: `apiframe`."""
    supports: Supports
    image_hosts: tuple[str, ...]
    """Hosts its images come from; empty where they are not known, which allows any public host."""
    models: tuple[str, ...]
    """Models of which parameters or prices are known here, to be offered; others may be asked for too."""

    def unsupported(self, request: JobRequest) -> Mapping[str, str]:
        """Name each parameter the user gave that cannot be expressed, with the reason.

        Keys are fields of the submit body: `seed`, `negative_prompt`, `num_images`, `aspect_ratio`.
        """

    def faults(self, request: JobRequest) -> list[dict[str, str]]:
        """List what the gateway documents that it will refuse: `{"field": ..., "message": ...}` each."""

    def submit(self, job: Job, callback_url: str | None) -> httpx.Request:
        """Build the submit request; without a callback URL the job will be polled."""

    def accepted(self, response: httpx.Response) -> Submission:
        """Read the answer to `submit`; raise the GatewayError that fits any other answer."""

    def verify(self, headers: Mapping[str, str], body: bytes) -> Verdict:
        """Check the gateway's own signature over the raw body; raise BadSignature if it does not fit.

        Header names are in lower case.
        """

    def read_callback(self, body: bytes) -> Completion:
        """Read a callback; raise MalformedCallback if it is not JSON or not this gateway's shape."""

    def poll(self, gateway_job_id: str) -> httpx.Request:
        """Build the request that asks how a job is."""

    def polled(self, response: httpx.Response) -> Completion:
        """Read the answer to `poll`; raise the GatewayError that fits any other answer."""

    def listing(self, cursor: str | None) -> httpx.Request | None:
        """Build the request for a page of the gateway's list of our jobs; None if it has no such list."""

    def listed(self, response: httpx.Response) -> JobList:
        """Read the answer to `listing`; raise the GatewayError that fits any other answer.

        What cannot be read in it is left out: that job is asked about by itself.
        """

    def estimate(self, request: JobRequest) -> float | None:
        """What the job should cost, in the gateway's credits, by its published prices; None if unknown."""


def send(client: httpx.Client, request: httpx.Request, *, max_bytes: int = 4 * 1024 * 1024) -> httpx.Response:
    """Send a gateway request and return the whole answer, whatever its status.

    Raises GatewayUnavailable if the request certainly did not arrive, and OutcomeUnknown if it may have:
    the difference decides whether a submission may be sent again (design: invariant 2). An answer over
    `max_bytes` is cut off and counts as unknown.
    """
    host = request.url.host
    try:
        response = client.send(request, stream=True)
        try:
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > max_bytes:
                    raise OutcomeUnknown(f"{host} answered more than {max_bytes} bytes.")
        finally:
            response.close()
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
        raise GatewayUnavailable(f"{host} could not be reached: {type(error).__name__}.") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OutcomeUnknown(f"{host} gave no whole answer: {type(error).__name__}.") from error
    headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-encoding"]
    return httpx.Response(response.status_code, headers=headers, content=bytes(content), request=request)
