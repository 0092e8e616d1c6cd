"""The `Gateway` base class of the adapters and of their settings, and the neutral values that they read.

An adapter does no I/O: it builds `httpx.Request` values and reads `httpx.Response` values, so that every
odd response of a gateway is a short test without a server.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Literal

import httpx
from pydantic import Field

from receiver.settings_types import Group, Hosts, Origin, Secret
from storage.models import ImageRef, Job, JobRequest, Verdict, Withheld

NO_KEY = "none"


class State(StrEnum):
    """A job's state at its gateway, in neutral words."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


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
    model: str | None = None
    seed: str | None = None
    credits: float | None = None
    error: str | None = None
    reply: Mapping[str, Any] | None = None
    unread: str | None = None
    """What of the report is not understood, such as an unknown status, which counts as running."""


@dataclass(frozen=True, slots=True)
class Submission:
    """An accepted submission."""

    gateway_job_id: str | None
    """None only with a `result`: a synchronous gateway may give no id."""
    request_id: str | None = None
    result: Completion | None = None
    """What the response says already; only with images, because "success" may mean that it was accepted."""


@dataclass(frozen=True, slots=True)
class JobList:
    """A page of a gateway's own list of jobs, newest first."""

    completions: Mapping[str, Completion]
    """By the gateway's job id."""
    next_cursor: str | None


class Gateway(ABC):
    """One hosted gateway. Adapters hold settings and no state.

    Requests and their readers come in pairs: `submit_request` and `read_submission`, `poll_request` and
    `read_poll`, `list_request` and `read_list`. What has a default here is for gateways without that feature.
    """

    name: ClassVar[str]
    """Its name in URLs, settings and the ledger: `apiframe`."""
    idempotent: ClassVar[bool] = False
    """Whether a submission sent twice with one idempotency key is accepted once."""
    image_hosts: ClassVar[tuple[str, ...]] = ()
    """Allow-list of the hosts of its images, subdomains included; empty where they are not known, which
    allows any public host. Settings may add to it."""
    models: ClassVar[tuple[str, ...]] = ()
    """Models whose parameters or prices are known here, to be offered; others may be requested too."""

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

    def verify(self, headers: Mapping[str, str], body: bytes) -> Verdict:  # noqa: ARG002 - a default
        """Verify the gateway's own signature over the raw body. Raises BadSignature if it is wrong.

        Header names are in lower case. By default there is none: only the signed callback URL is a proof.
        """
        return Verdict.UNSUPPORTED

    @abstractmethod
    def read_callback(self, body: bytes) -> Completion:
        """Parse a callback. Raises MalformedCallback if it is not JSON or not this gateway's shape."""

    @abstractmethod
    def poll_request(self, gateway_job_id: str) -> httpx.Request:
        """Build the request for a job's state."""

    @abstractmethod
    def read_poll(self, response: httpx.Response) -> Completion:
        """Parse the response to `poll_request`. Raises the GatewayError that fits a refusal."""

    def read_answer(self, body: bytes) -> Completion:
        """Parse the body of a response that had a job's result, to a poll or to the submission itself.

        Raises as `read_poll` does.
        """
        return self.read_poll(httpx.Response(httpx.codes.OK, content=body))

    def list_request(self, cursor: str | None) -> httpx.Request | None:  # noqa: ARG002 - a default
        """Build the request for a page of the gateway's list of our jobs; None if it has no such list."""
        return None

    def read_list(self, response: httpx.Response) -> JobList:
        """Parse the response to `list_request`. Raises the GatewayError that fits a refusal.

        Jobs that cannot be parsed are left out, and polled one by one.
        """
        raise NotImplementedError(response.request.url.path)


class GatewaySettings(Group, ABC):
    """One gateway; it is on once its API key is set."""

    signs_with_key: ClassVar[bool] = False
    """Whether it signs callbacks with the API key, so that they cannot be verified without one."""

    api_key: Secret | None = Field(None, description="Your API key; without it this gateway is off.")
    base_url: Origin = Field("https://gateway.invalid", description="Where its API is, without a path.")
    confirm: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Confirm callbacks with the gateway: unless their signature is valid (auto), always, "
        "or never.",
    )
    concurrency: int = Field(
        4,
        ge=1,
        le=64,
        description="Most requests of one process to this gateway at once, and most submissions of all.",
    )

    image_hosts: Hosts = Field(
        default_factory=list,
        description="Hosts of its images, with their subdomains, beside those that Darkroom knows; where it "
        "knows none, unset means any public host.",
    )

    @abstractmethod
    def adapter(self) -> Gateway:
        """Return the adapter. Without a key it sends nothing: it only verifies callbacks."""

    @property
    def key(self) -> str:
        """Return the API key; without one a word that no gateway accepts."""
        return self.api_key.get_secret_value() if self.api_key else NO_KEY
