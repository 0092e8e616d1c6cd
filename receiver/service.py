"""The running service: its parts, connected, and how it starts and stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware

from receiver.api import Api
from receiver.breaker import Breaker
from receiver.callbacks import Callbacks
from receiver.download import Downloader
from receiver.edge import Edge, handlers
from receiver.gateways.base import Gateway
from receiver.health import Health
from receiver.intake import Intake
from receiver.metrics import Metrics, MetricsPage
from receiver.notify_parts import NotifyParts
from receiver.openapi import Described
from receiver.redaction import Redactor
from receiver.retry import Retrier
from receiver.sending import Sender
from receiver.settings import Settings
from receiver.submission import CallbackUrls
from receiver.waiting import Waiters
from receiver.worker import Worker
from storage.archive import Archive
from storage.backlog import Backlog
from storage.circuits import Circuits
from storage.database import Database
from storage.ledger import Ledger
from storage.notifications import Notifications
from storage.objects import ObjectStore
from storage.search import Search

log = structlog.get_logger("darkroom.service")

STOP_S = 4.0
"""How long steps in hand may take to finish once the process was asked to stop."""
NOTIFY_STOP_S = 2.0
JOIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered, and where."""

    database: Database
    ledger: Ledger
    circuits: Circuits
    search: Search
    backlog: Backlog
    store: ObjectStore
    archive: Archive
    notifications: Notifications


@dataclass(frozen=True, slots=True)
class Outside:
    """The gateways, and how they are reached and reach us."""

    gateways: dict[str, Gateway]
    client: httpx.Client
    sender: Sender
    urls: CallbackUrls
    redactor: Redactor


@dataclass(frozen=True, slots=True)
class Service:
    """Everything that runs, connected. `start` it once, `stop` it once."""

    settings: Settings
    memory: Memory
    outside: Outside
    breaker: Breaker
    retrier: Retrier
    downloader: Downloader
    intake: Intake
    worker: Worker
    waiters: Waiters
    callbacks: Callbacks
    api: Api
    health: Health
    notify: NotifyParts
    metrics: Metrics
    page: MetricsPage

    def start(self, *, work: bool) -> None:
        """Begin to take callbacks in and, if `work`, to work."""
        slots = self.settings.worker.concurrency if work else 0
        self.metrics.watch(lambda: {"darkroom_worker_slots": slots})
        self.intake.start()
        if work:
            self.worker.start()
            self.notify.notifier.start()
        log.info("started", work=work, worker=self.worker.name, url=self.settings.public_url)

    def stop(self, *, work: bool) -> None:
        """Stop cleanly: nothing new is begun, and what is in hand is finished or given back."""
        self.waiters.close()
        if work:
            self.worker.stop(STOP_S)
            self.notify.notifier.stop(NOTIFY_STOP_S)
        self.intake.stop()
        self.downloader.close()
        self.outside.client.close()
        if work:
            self.worker.join(JOIN_S)
        self.memory.database.close()

    def asgi(self, *, work: bool, api: bool = True) -> Starlette:
        """The ASGI application; its lifespan starts and stops the service.

        Without `api` it has only the routes by which a worker is watched: health and metrics.
        """

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            self.start(work=work)
            try:
                yield
            finally:
                self.stop(work=work)

        watched = (self.health, self.page)
        parts = (self.callbacks, self.api, self.notify.routes, *watched) if api else watched
        routes = [route for part in parts for route in part.routes()]
        app = Starlette(
            routes=Described(routes, tokens=not self.api.admission.access.open).routes,
            middleware=[Middleware(Edge, metrics=self.metrics)],
            exception_handlers=handlers(),
            lifespan=lifespan,
        )
        # A redirect would swallow callbacks: senders do not follow one.
        app.router.redirect_slashes = False
        return app
