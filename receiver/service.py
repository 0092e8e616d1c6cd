"""The running service: its parts, connected, and how it starts and stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from starlette.applications import Starlette

from receiver.api.subscriptions import Subscriptions
from receiver.asgi import Surface
from receiver.callbacks.intake import Intake
from receiver.download.downloader import Downloader
from receiver.jobs.circuit_breaker import CircuitBreaker
from receiver.jobs.cleanup import Housekeeper
from receiver.jobs.retry import Retrier
from receiver.jobs.worker import Worker
from receiver.jobs.worker_processes import RunWorker, WorkerProcesses
from receiver.memory import Memory
from receiver.notifications.sender import Notifier
from receiver.outside import Outside
from receiver.redaction import Redactor
from receiver.roles import Role
from receiver.settings import Settings
from storage.ledger.wakeup import WakeupChannel

log = structlog.get_logger("darkroom.service")

STOP_S = 4.0
"""How long steps in hand may take to finish once the process was asked to stop."""
NOTIFY_STOP_S = 2.0
JOIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """Everything that runs, connected. `start` it once, `stop` it once."""

    settings: Settings
    memory: Memory
    outside: Outside
    breaker: CircuitBreaker
    retrier: Retrier
    downloader: Downloader
    intake: Intake
    worker: Worker
    workers: WorkerProcesses
    waiters: Subscriptions
    bell: WakeupChannel
    housekeeper: Housekeeper
    notifier: Notifier
    surface: Surface

    def start(self, *, work: bool) -> None:
        """Begin to take callbacks in and, if `work`, to work."""
        slots, workers = self.settings.worker.concurrency, self.workers
        own = slots if work else 0
        self.surface.metrics.watch(lambda: {"darkroom_worker_slots": own + slots * workers.running})
        self.bell.start()
        self.intake.start()
        self.housekeeper.start()
        if work:
            self.worker.start()
            self.notifier.start()
        log.info("started", work=work, worker=self.worker.name, url=self.settings.public_url)

    def cancel_waiters(self) -> None:
        """Answer those who wait for a job or a thumbnail, because a stop was asked for."""
        self.workers.leave()
        self.waiters.close()
        self.surface.links.thumbnails.close()

    def stop(self, *, work: bool) -> None:
        """Stop cleanly: nothing new is begun, and what is in hand is finished or given back."""
        self.cancel_waiters()
        if work:
            self.worker.stop(STOP_S)
            self.notifier.stop(NOTIFY_STOP_S)
        self.workers.stop(STOP_S + NOTIFY_STOP_S + JOIN_S)
        self.intake.stop()
        self.housekeeper.stop(JOIN_S)
        self.bell.stop(JOIN_S)
        self.downloader.close()
        self.outside.client.close()
        if work:
            self.worker.join(JOIN_S)
        self.memory.database.close()

    @property
    def redactor(self) -> Redactor:
        """Knows the secrets of this installation."""
        return self.outside.redactor

    def limit_waiters(self, connections: int) -> None:
        """Let no more wait than leave connections for others: whoever waits holds one."""
        self.waiters.at_most(connections // 2)

    def asgi(self, *, work: bool, role: Role = Role.ALL, apart: RunWorker | None = None) -> Starlette:
        """The ASGI application, with the routes of a role; its lifespan starts and stops the service.

        With `apart`, processes of their own do the work: each calls it (see `WorkerProcesses.start`).
        """
        here = work and apart is None

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            self.start(work=here)
            try:
                if work and apart is not None:
                    self.workers.start(apart)
                yield
            finally:
                self.stop(work=here)

        return self.surface.app(lifespan, role)
