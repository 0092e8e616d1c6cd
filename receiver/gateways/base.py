"""The port to a hosted gateway: what is sent to it and read from it, in neutral values.

An adapter does no I/O: it builds `httpx.Request` values and reads `httpx.Response` values, so that every
odd response of a gateway is a short test without a server. Nearly all of them are a table: see `table.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from storage.models import ImageRef, Job, JobRequest, Verdict, Withheld

if TYPE_CHECKING:
    import httpx


class State(StrEnum):
    """A job's state at its gateway, in neutral words."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    """It succeeded, and the gateway has deleted what it made: nothing can be had any more."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The neutral reading of a gateway's report on a job, from a callback or a poll.

    `gateway_job_id` is None only where the report names none. `reply` is the report as it came, decoded.
    """

    state: State
    gateway_job_id: str | None
    images: tuple[ImageRef, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    """The places in the gateway's list that have no image."""
    partial: bool = False
    """Whether more images follow: the gateway is asked until it has them all."""
    model: str | None = None
    seed: str | None = None
    """The seed that the gateway says it used."""
    echoed_seed: str | None = None
    """Our own input sent back, which proves no seed."""
    credits: float | None = None
    error: str | None = None
    reply: Mapping[str, Any] | None = None
    unread: str | None = None
    """What of the report is not understood, such as an unknown status, which counts as running."""


@dataclass(frozen=True, slots=True)
class Follow:
    """The second step of a poll: what is asked next, and how its response is read.

    At most one follows a poll, and only to the host that was polled.
    """

    request: httpx.Request
    read: Callable[[httpx.Response], Completion]
    """Raises the GatewayError that fits a refusal."""


@dataclass(frozen=True, slots=True)
class Submission:
    """An accepted submission."""

    gateway_job_id: str | None
    """None only with a `result`: a synchronous gateway may give no id."""
    request_id: str | None = None
    result: Completion | None = None
    """What the response says already; only with images, because "success" may mean that it was accepted."""
    poll_url: str | None = None
    """Where the gateway wants the job to be polled; only a URL on its own hosts."""


@dataclass(frozen=True, slots=True)
class JobList:
    """A page of a gateway's own list of jobs, newest first."""

    completions: Mapping[str, Completion]
    """By the gateway's job id."""
    next_cursor: str | None


class Gateway(ABC):
    """One hosted gateway. Adapters hold settings and no state.

    Requests and their readers come in pairs: `submit_request` and `read_submission`, `poll` and `read_poll`,
    `cancel_request` and `read_cancel`, `list_request` and `read_list`, `keys_request` and `read_keys`. What
    has a default here is for gateways without that feature.
    """

    name: str
    """Its name in URLs, settings and the ledger: `apiframe`."""
    idempotent: bool = False
    """Whether a submission sent twice with one idempotency key is accepted once."""
    image_hosts: Sequence[str] = ()
    """Allow-list of the hosts of its images, subdomains included; empty where they are not known, which
    allows any public host. Settings may add to it."""
    models: Sequence[str] = ()
    """Models whose parameters or prices are known here, to be offered; others may be requested too."""
    secrets: Sequence[str] = ()
    """What must never be shown: its API keys, and what its callbacks are signed with."""
    has_keys: bool = False
    """Whether it publishes keys that verify its callbacks: known without a request, which loads httpx."""
    life_s: float | None = None
    """How long the links to its images live, in seconds; None where that is not known."""

    def unsupported(self, request: JobRequest) -> Mapping[str, str]:  # noqa: ARG002 - a default
        """Return each parameter that cannot be expressed to the gateway, with the reason.

        Keys are fields of the submit body: `seed`, `negative_prompt`, `num_images`, `aspect_ratio`.
        """
        return {}

    def faults(self, request: JobRequest) -> list[dict[str, str]]:  # noqa: ARG002 - a default
        """Validate by the gateway's documents: `{"field": ..., "message": ...}` for each fault."""
        return []

    def estimate(self, request: JobRequest) -> float | None:  # noqa: ARG002 - a default
        """Return the job's cost in the gateway's credits, by its published prices; None if unknown."""
        return None

    @abstractmethod
    def submit_request(self, job: Job, callback_url: str | None) -> httpx.Request:
        """Build the submit request; without a callback URL the job will be polled."""

    @abstractmethod
    def read_submission(self, response: httpx.Response) -> Submission:
        """Parse the response to `submit_request`. Raises the GatewayError that fits a refusal."""

    def keys_request(self) -> httpx.Request | None:
        """Build the request for the public keys that verify its callbacks; None if it publishes none."""
        return None

    def read_keys(self, response: httpx.Response) -> tuple[bytes, ...]:
        """Parse the response to `keys_request`. Raises the GatewayError that fits a refusal."""
        raise NotImplementedError(response.request.url.path)

    def verify(
        self,
        headers: Mapping[str, str],  # noqa: ARG002 - a default
        body: bytes,  # noqa: ARG002
        *,
        now_s: float,  # noqa: ARG002
        keys: Sequence[bytes] = (),  # noqa: ARG002
    ) -> Verdict:
        """Verify the gateway's own signature over the raw body. Raises BadSignature if it is wrong.

        Header names are in lower case. `now_s` is in seconds since 1970 UTC, and `keys` are those of
        `read_keys`, as far as they could be fetched. By default there is no signature: only the signed
        callback URL is a proof.
        """
        return Verdict.UNSUPPORTED

    @abstractmethod
    def read_callback(self, body: bytes) -> Completion:
        """Parse a callback. Raises MalformedCallback if it is not JSON or not this gateway's shape."""

    @abstractmethod
    def poll(self, job: Job) -> httpx.Request:
        """Build the request for the state of a job, which has a `gateway_job_id`."""

    @abstractmethod
    def read_poll(self, response: httpx.Response, job: Job) -> Completion | Follow:
        """Parse the response to `poll`, or return what must be asked next.

        Raises the GatewayError that fits a refusal.
        """

    def read_answer(self, body: bytes, job: Job) -> Completion:
        """Parse the body of a response that had a job's result, to a poll or to the submission itself.

        Raises as `read_poll` does.
        """
        import httpx  # a process that only takes callbacks does without

        found = self.read_poll(httpx.Response(httpx.codes.OK, content=body), job)
        assert isinstance(found, Completion)
        return found

    def cancel_request(self, job: Job) -> httpx.Request | None:  # noqa: ARG002 - a default
        """Build the request that cancels a running job; None if the gateway has none."""
        return None

    def read_cancel(self, response: httpx.Response) -> None:
        """Check the response to `cancel_request`. Raises the GatewayError that fits a refusal."""
        raise NotImplementedError(response.request.url.path)

    def list_request(self, cursor: str | None) -> httpx.Request | None:  # noqa: ARG002 - a default
        """Build the request for a page of the gateway's list of our jobs; None if it has no such list."""
        return None

    def read_list(self, response: httpx.Response) -> JobList:
        """Parse the response to `list_request`. Raises the GatewayError that fits a refusal.

        Jobs that cannot be parsed are left out, and polled one by one.
        """
        raise NotImplementedError(response.request.url.path)
