"""An application that is notified, and a ledger with a notifier at work on it; nothing else is needed."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook

from receiver.keyring import new_webhook_secret
from receiver.notifications.sender import Notifier
from receiver.notifications.transport import Poster
from receiver.notifications.url_policy import NotifyPolicy
from receiver.redaction import Redactor
from receiver.schedule import system_clock
from receiver.telemetry.metrics import Metrics
from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from storage.ledger.notifications import Notification, Notifications
from storage.ledger.outbox import Outbox
from storage.models import Attempt, Clock, Job, JobError, JobRequest, Status
from tests.support.ledgers import add_job
from tests.support.live import FAST, Movable
from tests.support.recorder import Answer, Received, Recorder

SECRET = new_webhook_secret()
LOOPBACK = ip_network("127.0.0.0/8")
EXACT = replace(FAST, jitter=0)


class Told(Received):
    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str = SECRET) -> Any:
        """What it says; raises WebhookVerificationError if it is not signed with the secret, or old."""
        return Webhook(secret).verify(self.body, dict(self.headers))


class Application(Recorder):
    """Keeps what it is told, and answers `answers` in turn, then 204."""

    def __init__(self, *answers: Answer, port: int = 0) -> None:
        super().__init__(*answers, then=Answer(), port=port)
        self.told = self.requests
        self.url += "/hook"

    def next(self, timeout_s: float = 10) -> Told:
        return Told(**vars(super().next(timeout_s)))


@dataclass(frozen=True)
class Desk:
    """A ledger, and a notifier that sends what it owes."""

    ledger: Ledger
    notifications: Notifications
    notifier: Notifier
    metrics: Metrics
    clock: Movable

    def rest(self, url: str | None, job_id: str = "", *, error: str = "No.") -> Job:
        job_id = job_id or f"01a201ee-0000-7000-8000-{secrets.token_hex(6)}"
        request = JobRequest(model="imagen-4", prompt="a red kite", params={"image_size": "1K"})
        add_job(self.ledger, job_id, "apiframe", request, notify_url=url)
        (job,) = self.ledger.claim("w", 1)
        job = self.ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
        return self._end(job, Status.FAILED, error=JobError("generation_failed", error, "gateway"))

    def again(self, job: Job) -> Job:
        attempt = Attempt.once("retry", "asked", "Asked for again.", self.clock())
        self.ledger.reopen(job, Status.RUNNING, attempt, gateway_job_id=f"theirs-{job.id}")
        (job,) = self.ledger.claim("w", 1)
        job = self.ledger.move(job, Status.READY, "w", keep_lease=True)
        return self._end(job, Status.ARCHIVED)

    def _end(self, job: Job, to: Status, **changes: Any) -> Job:
        job = self.ledger.move(job, to, "w", **changes)
        self.notifier.wake()
        return job

    def one(self, job: Job, number: int = 1) -> Notification:
        return self.notifications.of_job(job.id)[number - 1]

    def until(self, job: Job, number: int = 1, /, *, holds: Callable[[Notification], object]) -> Notification:
        """Wait until something holds of a notification; the ledger tells nobody when it is written."""
        for _ in range(1000):
            if holds(one := self.one(job, number)):
                return one
            threading.Event().wait(0.01)
        raise AssertionError(one)

    def tried(self, job: Job, times: int, number: int = 1) -> Notification:
        return self.until(job, number, holds=lambda one: one.attempts == times)

    def delivered(self, job: Job, number: int = 1) -> Notification:
        return self.until(job, number, holds=lambda one: one.delivered_at is not None)

    def forward(self, seconds: float) -> None:
        self.clock.forward(seconds)
        self.notifier.wake()


def policy(*secret: str, **more: Any) -> NotifyPolicy:
    return NotifyPolicy(networks=(LOOPBACK,), secrets=secret or (SECRET,), **more)


@contextmanager
def desk(
    folder: Path,
    *,
    secrets: Sequence[str] = (SECRET,),
    base: Clock = system_clock,
    timeout_s: float = 5,
    concurrency: int = 8,
    start: bool = True,
    patience_s: float = 5,
    poster: Poster | None = None,
    timing: Any = EXACT,
) -> Iterator[Desk]:
    """A notifier at work until the end of the block."""
    clock = Movable(base)
    database = Database.open(f"sqlite:///{folder / 'ledger.sqlite3'}")
    metrics = Metrics(["apiframe"])
    notifier = Notifier(
        Outbox(database, clock),
        poster or Poster(policy(*secrets), timeout_s=timeout_s),
        secrets,
        timing=timing,
        clock=clock,
        redactor=Redactor(secrets),
        metrics=metrics,
        concurrency=concurrency,
        timeout_s=timeout_s,
    )
    if start:
        notifier.start()
    try:
        yield Desk(Ledger(database, clock), Notifications(database, clock), notifier, metrics, clock)
    finally:
        notifier.stop(patience_s)
        database.close()
