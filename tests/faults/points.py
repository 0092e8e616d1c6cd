"""Where a service can be told to kill itself: real parts of it that die before, in or after a step.

A step is a thing that lasts: a commit of the ledger, an object in the bucket, a request on the wire.

`before` is before anything of the step was done, `commit` inside the transaction just before it commits,
`wire` when the last byte of a request was handed over and no answer was read, and `after` when the step is
done and its caller does not know yet.
"""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Literal

import httpx
from sqlalchemy import Connection

from receiver.gateways.client import GatewayClient
from receiver.resources import Factories
from storage.archive.object_store import ObjectStore, StoredObject
from storage.errors import Conflict
from storage.ledger.database import Database
from storage.ledger.deliveries import DeliveryResult, NewDelivery
from storage.ledger.job_writer import Accepted, Change, NewJob
from storage.ledger.ledger import LEASE_MS, Ledger
from storage.models import Job, Status

When = Literal["before", "commit", "wire", "after"]


@dataclass(frozen=True, slots=True)
class Kill:
    """The moment at which a process is to die by SIGKILL, of its own hand: the `nth` time it comes there."""

    step: str
    """`migrate`, `add_job`, `claim`, `record`, `move:<status>`, `postpone`, `reopen`, `put:image`,
    `put:record`, `put:probe`, `send:submit` or `send:poll`."""
    when: When
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.when} {self.step}" + (f" (no. {self.nth})" if self.nth > 1 else "")


class Points:
    """One per process: counts how often the armed moment was reached, and ends the process there."""

    def __init__(self) -> None:
        self._kill: Kill | None = None
        self._left = 0
        self._lock = threading.Lock()
        self._doing = threading.local()

    def arm(self, kill: Kill | None) -> None:
        self._kill, self._left = kill, kill.nth if kill else 0

    def at(self, step: str, when: When) -> None:
        if self._kill is None or (self._kill.step, self._kill.when) != (step, when):
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def doing(self, step: str) -> Iterator[None]:
        """Do a step in the block; its commits are known by its name."""
        self.at(step, "before")
        self._doing.step = step
        try:
            yield
        finally:
            self._doing.step = None
        self.at(step, "after")

    @contextmanager
    def committing_for(self, steps: Sequence[str]) -> Iterator[None]:
        """Write these steps in the block, which may be those of several threads."""
        before = getattr(self._doing, "step", None)
        self._doing.steps, self._doing.step = steps, None
        try:
            yield
        finally:
            self._doing.steps, self._doing.step = (), before

    def committing(self) -> None:
        """Say that this thread is about to commit."""
        step = getattr(self._doing, "step", None)
        for one in getattr(self._doing, "steps", ()) or ([] if step is None else [step]):
            self.at(one, "commit")


POINTS = Points()


class KillingDatabase(Database):
    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        with super().write(durable=durable) as connection:
            yield connection
            POINTS.committing()

    def migrate(self) -> None:
        with POINTS.doing("migrate"):
            super().migrate()


class KillingLedger(Ledger):
    def add_jobs(self, asked: Sequence[NewJob]) -> list[Accepted | Conflict]:
        with POINTS.doing("add_job"):
            return super().add_jobs(asked)

    def add_deliveries(self, offers: Sequence[NewDelivery]) -> list[DeliveryResult]:
        with POINTS.doing("record"):
            return super().add_deliveries(offers)

    def claim(self, *args: Any, **more: Any) -> list[Job]:
        claimed = super().claim(*args, **more)
        if claimed:  # an idle worker claims nothing, all the time
            POINTS.at("claim", "after")
        return claimed

    def move(self, job: Job, to: Status, worker: str, **more: Any) -> Job:
        with POINTS.doing(f"move:{to}"):
            return super().move(job, to, worker, **more)

    def postpone(self, job: Job, worker: str, **more: Any) -> Job:
        with POINTS.doing("postpone"):
            return super().postpone(job, worker, **more)

    def reopen(self, *args: Any, **more: Any) -> Job:
        with POINTS.doing("reopen"):
            return super().reopen(*args, **more)

    def _write_changes(self, changes: Sequence[Change]) -> list[Job]:
        # Whoever commits for others dies with them.
        with POINTS.committing_for([_step(change) for change in changes]):
            return super()._write_changes(changes)


def _step(change: Change) -> str:
    return f"move:{change.status}" if "status" in change.values else "postpone"


class KillingStore(ObjectStore):
    def put(self, key: str, file: BinaryIO, **more: Any) -> StoredObject:
        kind = "probe" if "darkroom-probes/" in key else "record" if "records/" in key else "image"
        with POINTS.doing(f"put:{kind}"):
            return super().put(key, file, **more)


class KillingSender(GatewayClient):
    def send(self, request: httpx.Request) -> httpx.Response:
        asks = request.method == "GET" or b'"getResponse"' in request.content  # Runware's question
        step = "send:poll" if asks else "send:submit"

        def trace(event: str, _info: object) -> None:
            if event.endswith("send_request_body.complete"):
                POINTS.at(step, "wire")

        request.extensions = {**request.extensions, "trace": trace}
        with POINTS.doing(step):
            return super().send(request)


def factories(lease_ms: int = LEASE_MS) -> Factories:
    return Factories(
        database=KillingDatabase.connect,
        ledger=partial(KillingLedger, lease_ms=lease_ms),
        store=KillingStore.connect,
        sender=KillingSender,
    )
