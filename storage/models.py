"""Jobs, deliveries, outputs and circuits as plain values, and the statuses of a job.

    queued -> submitting -> running -> ready -> archived | partial | failed
    queued | running -> cancelled

Which moves are legal is decided in `storage/ledger/transitions.py`. Times are milliseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

Clock = Callable[[], int]
"""Returns the time now, in milliseconds since 1970-01-01 UTC."""


class Status(StrEnum):
    """Where a job is in its life; the diagram is in `darkroom help life`."""

    QUEUED = "queued"
    SUBMITTING = "submitting"
    RUNNING = "running"
    READY = "ready"
    ARCHIVED = "archived"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether only a retry can move a job on from here."""
        return self in (Status.ARCHIVED, Status.PARTIAL, Status.FAILED, Status.CANCELLED)


class Verdict(StrEnum):
    """The result of verifying a gateway's own signature on a callback."""

    VALID = "valid"
    ABSENT = "absent"
    UNSUPPORTED = "unsupported"
    STALE = "stale"
    """It is true, but of another time: sent again late, or a replay."""
    ORIGIN = "origin"
    """It proves who sent it, and not what was sent."""
    ANSWER = "answer"
    """It is no callback: the gateway's answer to a request of ours, kept because images stand in it."""


class FoundBy(StrEnum):
    """How a job's completion was found."""

    CALLBACK = "callback"
    POLL = "poll"
    POLL_ONLY = "poll_only"
    """Polled because no public URL is set, so that no callback could come."""
    SUBMISSION = "submission"
    """The answer to the submission had it."""


class NotificationState(StrEnum):
    """Where a notification is in its life."""

    PENDING = "pending"
    """Waiting to be sent, or to be sent again."""
    DELIVERED = "delivered"
    FAILED = "failed"
    """Every retry failed, or its receiver returned 410; a replay sends it again."""


class UsageBy(StrEnum):
    """What usage is grouped by."""

    GATEWAY = "gateway"
    MODEL = "model"
    """As reported, or as requested where the gateway reports none."""
    DAY = "day"
    """In UTC, on which the job was created."""
    TAG = "tag"
    """A tag's value."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a user asked a gateway for, with the same field names for every gateway.

    `seed` is text because some gateways take text, and some numbers exceed 2^53. `params` go to the gateway
    unchanged. `ignored` names the parameters that the user allowed us to drop.
    """

    model: str
    prompt: str
    negative_prompt: str | None = None
    aspect_ratio: str | None = None
    num_images: int | None = None
    seed: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image that a gateway reported: where it is now, and its own seed if there is one."""

    url: str
    seed: str | None = None
    index: int = 0
    """Its place in the gateway's list, from 0."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """A place in a gateway's list of images that has none, and the reason that it gave, if any."""

    index: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class JobResult:
    """What the gateway reported of a job; None is unknown."""

    model: str | None = None
    seed: str | None = None
    echoed_seed: str | None = None
    """Our own input sent back, which proves no seed."""
    credits: float | None = None
    credits_estimated: bool = False
    images: tuple[ImageRef, ...] = ()
    """Empty once the job is terminal."""
    images_returned: int | None = None
    """How many they were; None as well where an earlier version did not note it."""
    withheld: tuple[Withheld, ...] = ()
    reply: Mapping[str, Any] | None = None
    """The gateway's response or callback that decided the job, with secrets and URL queries redacted."""


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed, or is partial. `at_fault`: request, gateway, image, archive or operator."""

    code: str
    message: str
    at_fault: str
    details: Mapping[str, Any] | None = None
    """The gateway's own message for each field, where it gave them."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a step, or several in a row with the same result."""

    step: str
    """`send`, `ask`, `download`, `archive` or `retry`."""
    code: str
    """The result: `taken`, `running`, `succeeded`, `failed`, `asked` (a retry), or an error's code."""
    message: str
    first_at: int
    last_at: int
    times: int = 1

    @classmethod
    def once(cls, step: str, code: str, message: str, at: int) -> Attempt:
        """Return one try."""
        return cls(step, code, message, at, at)


@dataclass(frozen=True, slots=True)
class Job:
    """One submission to one gateway."""

    id: str
    gateway: str
    status: Status
    request: JobRequest
    created_at: int
    updated_at: int
    next_attempt_at: int | None
    """When the next step is due; None once the job is terminal."""
    attempts: int = 0
    """How often the present step was tried; reset to 0 by each move."""
    idempotency_key: str | None = None
    request_sha256: str = ""
    """Digest of the request: another one under the same idempotency key is a conflict."""
    notify_url: str | None = None
    gateway_job_id: str | None = None
    gateway_request_id: str | None = None
    poll_url: str | None = None
    """Where the gateway wants it to be polled, if it said so: a URL on the gateway's own hosts."""
    callback_expected: bool = False
    sent: Mapping[str, Any] | None = None
    """The body of the request as it was sent, with secrets and the callback token redacted."""
    result: JobResult = JobResult()
    found_by: FoundBy | None = None
    error: JobError | None = None
    leased_by: str | None = None
    leased_until: int | None = None
    request_id: str | None = None
    """The id of the API request that created it, which is in every log line about it."""
    submission: int = 1
    """Number of the submission: a retry that is paid for again is the next one."""
    credits_before: float = 0.0
    credits_before_estimated: float = 0.0
    """What earlier submissions were charged, as far as known, and the part of it from price lists."""
    submission_at: int | None = None
    """When this submission was first sent, or requested by a retry; None before the first."""
    ready_at: int | None = None
    """When it became ready, so that its image links may expire; None before."""
    called_off_at: int | None = None
    """When the gateway was told to cancel this submission; None if it was not, or refused."""
    records: int = 0
    """How many records the archive has: one, and one more for each retry that found more."""
    attempt_log: tuple[Attempt, ...] = ()
    moves: tuple[tuple[Status, int], ...] = ()
    """Each status the job has had and since when, oldest first."""

    @property
    def submission_id(self) -> str:
        """The idempotency key at the gateway: the job's id, and from the second submission on its number."""
        return self.id if self.submission == 1 else f"{self.id}.{self.submission}"

    @property
    def began_at(self) -> int:
        """When this submission began."""
        return self.submission_at or self.created_at

    @property
    def short(self) -> bool:
        """Whether the gateway returned fewer images than it was asked for, as far as known."""
        returned = self.result.images_returned
        asked = self.request.num_images or 1
        return returned is not None and (returned < asked or bool(self.result.withheld))

    @property
    def reopened(self) -> bool:
        """Whether its last move was a retry."""
        return len(self.moves) > 1 and self.moves[-2][0].terminal

    def moved_at(self, status: Status) -> int | None:
        """Return when the job last moved to a status, or None if it never did."""
        return next((at for moved, at in reversed(self.moves) if moved == status), None)


@dataclass(frozen=True, slots=True)
class Circuit:
    """The circuit breaker of a gateway or an image host that failed lately."""

    kind: Literal["gateway", "image_host"]
    name: str
    step: str
    """What failed there last: `send`, `ask` or `download`."""
    code: str
    message: str
    at_fault: str
    failures: int
    """Failures in a row."""
    since: int
    """When the first of them was."""
    retry_at: int | None
    """While open: when it becomes half-open. None while closed, when failures are only counted."""
    probe_until: int | None = None
    """While half-open: until when the one probe that may pass blocks all others."""

    def blocks(self, now: int) -> bool:
        """Return whether nothing may pass now."""
        return self.retry_at is not None and max(self.retry_at, self.probe_until or 0) > now

    def state(self, now: int) -> Literal["closed", "open", "half_open"]:
        """Return `closed` (failures are counted), `open` (blocked), or `half_open` (one probe may pass)."""
        if self.retry_at is None:
            return "closed"
        return "open" if self.retry_at > now else "half_open"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A callback that was verified and recorded, or an answer of the gateway that has images in it."""

    id: str
    job_id: str
    gateway: str
    received_at: int
    headers: Mapping[str, str]
    body: bytes
    body_sha256: str
    """Hex digest of the body as it came over the wire."""
    signature: Verdict
    applied_at: int | None = None
    effect: str | None = None
    """What it changed: `progress`, `hint` (the gateway was polled), `ready`, `failed`, `late`, `mismatch`."""


@dataclass(frozen=True, slots=True)
class Output:
    """One generated image of a job, as it is in the archive."""

    job_id: str
    index: int
    key: str
    sha256: str
    bytes: int
    media_type: str
    width: int
    height: int
    stored_at: int
    declared_type: str | None = None
    seed: str | None = None
    source_url: str | None = None
    """Where it was downloaded from, without its query."""
    downloaded_at: int | None = None
    version_id: str | None = None
    missing_since: int | None = None
    """Since when the bucket is known to lack it, or to have another length; None while it is there."""

    @property
    def id(self) -> str:
        """The public id: `<job id>.<index>`."""
        return f"{self.job_id}.{self.index}"


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many jobs are in each status. They balance when every accepted job is in exactly one."""

    accepted: int
    counts: Mapping[Status, int]
    found_by_polling: int
    oldest_unfinished_at: int | None

    @property
    def balanced(self) -> bool:
        """Whether `accepted` is the sum over all statuses."""
        return self.accepted == sum(self.counts.values())


def rfc3339(ms: int) -> str:
    """Format a time by RFC 3339: `2026-11-22T10:00:00.123Z`."""
    moment = datetime.fromtimestamp(ms / 1000, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
