"""Keep the sandbox's jobs, accounts and credits, in memory."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal

from receiver.sandbox.core.config import Account, SandboxConfig
from receiver.sandbox.core.faults import Asked
from receiver.sandbox.core.pictures import Spec

State = Literal["QUEUED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"]
Event = Literal["progress", "completed", "failed", "cancelled"]

REPLAY_S = 24 * 3600
"""TTL of Apiframe's idempotency keys."""


@dataclass(frozen=True, slots=True)
class CallbackSent:
    """One attempt to deliver a callback. `status` is None if there was no response; `problem` says why."""

    event: Event
    attempt: int
    status: int | None
    problem: str | None = None
    body_sha256: str = ""
    """Hex digest of the body that was sent."""

    @property
    def delivered(self) -> bool:
        """Whether the receiver returned 2xx."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(slots=True)
class SandboxJob:
    """A job at the stand-in. Only the sandbox's event loop changes it."""

    id: str
    account: Account
    model: str
    prompt: str
    input: dict[str, Any]
    specs: tuple[Spec, ...]
    faults: Asked
    base_url: str
    callback_url: str | None
    events: frozenset[str]
    cost: int
    created_at: float
    seed: int | None = None
    inputs: tuple[str, ...] = ()
    """SHA-256 of the images that it was made from, in hex."""
    options: dict[str, Any] = field(default_factory=dict)
    """What only its own gateway needs, such as a secret for its callbacks."""
    idempotency_key: str | None = None
    status: State = "QUEUED"
    progress: int = 0
    completed_at: float | None = None
    error: str | None = None
    webhook_status: Literal["pending", "delivered", "failed"] | None = None
    callbacks: list[CallbackSent] = field(default_factory=list)
    inline: tuple[str, ...] = ()
    """Its images as data URIs once it has succeeded, if its gateway or a fault gives them so."""
    link: int = 1
    """The current issue of the image links."""
    link_tried: bool = False
    made: bool = False
    """Whether it has succeeded once, even if it changed its mind since."""
    callbacks_sent: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last callback was tried once, or never will be."""
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
    """Whether nothing more will happen to this job by itself."""

    @property
    def done(self) -> bool:
        """Whether polls say that it is finished."""
        return self.status in ("COMPLETED", "FAILED", "CANCELLED")

    @property
    def so_far(self) -> int:
        """The per cent in a progress callback, which a fault may send after the end."""
        return min(self.progress, 80)

    @property
    def done_at(self) -> str | None:
        """When it finished, as text."""
        return None if self.completed_at is None else iso(self.completed_at)

    def dead(self, link: int) -> bool:
        """Return whether this issue of the links never works."""
        dead = "expired_link" in self.faults
        return dead and (self.faults.forever or link <= (self.faults.times or 1))

    def links(self) -> list[str]:
        """Return the image links."""
        query = f"?link={self.link}" if self.link > 1 else ""
        return [
            f"{self.base_url}/images/{self.id}/{spec.index}.{spec.extension}{query}" for spec in self.specs
        ]

    def named(self) -> list[str]:
        """Return the links that callbacks and polls name where the images belong."""
        if "no_images" in self.faults or "odd_place" in self.faults:
            return []
        if self.inline:
            return list(self.inline)
        return [self.faults.url for _ in self.specs] if "odd_link" in self.faults else self.links()

    def renew(self) -> None:
        """Issue fresh links if the current ones are dead and were tried."""
        if self.link_tried and self.dead(self.link):
            self.link, self.link_tried = self.link + 1, False


@dataclass(frozen=True, slots=True)
class JobReport:
    """A snapshot of a job, for tests and people."""

    id: str
    gateway: str
    model: str
    prompt: str
    input: dict[str, Any]
    inputs: tuple[str, ...]
    fault: str
    idempotency_key: str | None
    callback_url: str | None
    status: State
    error: str | None
    webhook_status: str | None
    cost: int
    images: tuple[str, ...]
    callbacks: tuple[CallbackSent, ...]
    over: bool
    created_at: str


class Jobs:
    """All jobs and balances. The loop writes; other threads may read reports and wait."""

    def __init__(self, config: SandboxConfig) -> None:
        self._config = config
        self._jobs: dict[str, SandboxJob] = {}
        self._accounts = {account.key: account for account in config.accounts}
        self._credits = {account.key: account.credits for account in config.accounts}
        self._replays: dict[tuple[str, str], tuple[str, str, float]] = {}
        self._refusals: Counter[tuple[str, str]] = Counter()
        self._changed = threading.Condition()

    def account(self, key: str | None, gateway: str) -> Account | None:
        """Return the account of an API key, if it is one of this gateway's."""
        account = self._accounts.get(key or "")
        return account if account and account.gateway == gateway else None

    def balance(self, account: Account) -> int:
        """Return the credits left."""
        return self._credits[account.key]

    def add(self, job: SandboxJob, digest: str) -> None:
        """Add a job, charge its credits, and remember its idempotency key."""
        self._credits[job.account.key] -= job.cost
        if job.idempotency_key:
            self._replays[job.account.key, job.idempotency_key] = (digest, job.id, job.created_at)
        self._jobs[job.id] = job
        self._forget()
        self.changed()

    def refund(self, job: SandboxJob) -> None:
        """Refund the credits of a failed job."""
        self._credits[job.account.key] += job.cost
        job.cost = 0

    def replay(self, account: Account, key: str | None) -> tuple[str, SandboxJob] | None:
        """Return the digest and job of an earlier submission with this idempotency key, for 24 hours."""
        digest, job_id, at = self._replays.get((account.key, key or ""), ("", "", 0.0))
        job = self._jobs.get(job_id)
        if job is None or self._config.clock() - at >= REPLAY_S:
            return None
        return digest, job

    def spend(self, kind: str, submission: str, times: int) -> bool:
        """Count a fault of a submission; return whether it strikes once more."""
        self._refusals[kind, submission] += 1
        return self._refusals[kind, submission] <= times

    def get(self, job_id: str, account: Account | None = None) -> SandboxJob | None:
        """Return a job by id; another account's is not found."""
        job = self._jobs.get(job_id)
        return job if job and account in (None, job.account) else None

    def latest(self, account: Account) -> Iterator[SandboxJob]:
        """Yield an account's jobs, newest first."""
        return (job for job in reversed(list(self._jobs.values())) if job.account == account)

    def changed(self) -> None:
        """Wake the threads in `wait`."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, job_id: str, timeout_s: float, *, callbacks: bool) -> bool:
        """Wait, in another thread than the loop's, until a job is done; with `callbacks`, these too."""

        def reached() -> bool:
            job = self._jobs.get(job_id)
            return job is not None and (job.over or (job.done and not callbacks))

        with self._changed:
            return self._changed.wait_for(reached, timeout_s)

    def reports(self) -> list[JobReport]:
        """Return snapshots of all jobs, oldest first."""
        return [_report(job) for job in list(self._jobs.values())]

    def _forget(self) -> None:
        if len(self._jobs) <= self._config.keep_jobs:
            return
        oldest = next((job for job in self._jobs.values() if job.over), None)
        if oldest is not None:
            del self._jobs[oldest.id]
            self._replays.pop((oldest.account.key, oldest.idempotency_key or ""), None)


def _report(job: SandboxJob) -> JobReport:
    known = {one.name: getattr(job, one.name) for one in fields(JobReport) if hasattr(job, one.name)}
    known |= {"gateway": job.account.gateway, "fault": "+".join(job.faults.fault)}
    known |= {"callbacks": tuple(job.callbacks), "created_at": iso(job.created_at)}
    return JobReport(**known, images=tuple(job.links()) if job.made else ())


def iso(seconds: float) -> str:
    """A time as Apiframe writes it: `2026-11-22T10:00:00.000Z`."""
    text = datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
