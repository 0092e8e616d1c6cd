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
from receiver.counting import Counting
from receiver.download import Downloader
from receiver.edge import Edge, handlers
from receiver.events import EventsPage
from receiver.gallery.pages import Gallery
from receiver.gateways.base import Gateway
from receiver.health import Health
from receiver.housekeeping import Housekeeper
from receiver.intake import Intake
from receiver.links import Links
from receiver.metrics import Metrics, MetricsPage
from receiver.openapi import Described
from receiver.redaction import Redactor
from receiver.retry import Retrier
from receiver.sending import Sender
from receiver.settings import Settings
from receiver.submission import CallbackUrls
from receiver.usage import UsageApi
from receiver.waiting import Waiters
from receiver.worker import Worker
from storage.archive import Archive
from storage.backlog import Backlog
from storage.circuits import Circuits
from storage.database import Database
from storage.facets import Facets
from storage.ledger import Ledger
from storage.objects import ObjectStore
from storage.search import Search
from storage.usage import Usage

log = structlog.get_logger("darkroom.service")

STOP_S = 4.0
"""How long steps in hand may take to finish once the process was asked to stop."""
JOIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered, and where."""

    database: Database
    ledger: Ledger
    circuits: Circuits
    search: Search
    usage: Usage
    facets: Facets
    backlog: Backlog
    store: ObjectStore
    archive: Archive


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
    counting: Counting
    api: Api
    gallery: Gallery
    links: Links
    events: EventsPage
    housekeeper: Housekeeper
    health: Health
    metrics: Metrics
    page: MetricsPage
    usage: UsageApi

    def start(self, *, work: bool) -> None:
        """Begin to take callbacks in and, if `work`, to work."""
        slots = self.settings.worker.concurrency if work else 0
        self.metrics.watch(lambda: {"darkroom_worker_slots": slots})
        self.intake.start()
        self.housekeeper.start()
        if work:
            self.worker.start()
        log.info("started", work=work, worker=self.worker.name, url=self.settings.public_url)

    def send_home(self) -> None:
        """Answer those who wait for a job or a thumbnail, because a stop was asked for."""
        self.waiters.close()
        self.links.thumbnails.close()

    def stop(self, *, work: bool) -> None:
        """Stop cleanly: nothing new is begun, and what is in hand is finished or given back."""
        self.send_home()
        if work:
            self.worker.stop(STOP_S)
        self.intake.stop()
        self.housekeeper.stop(JOIN_S)
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
        ours = (self.callbacks, self.api, self.counting, self.links, self.events, self.usage)
        parts = (*ours, *watched) if api else watched
        routes = [route for part in parts for route in part.routes()]
        described = Described(routes, tokens=not self.api.admission.access.open).routes
        app = Starlette(
            routes=[*described, *(self.gallery.routes() if api else ())],
            middleware=[Middleware(Edge, metrics=self.metrics)],
            exception_handlers=self.gallery.handlers(handlers()) if api else handlers(),
            lifespan=lifespan,
        )
        # A redirect would swallow callbacks: senders do not follow one.
        app.router.redirect_slashes = False
        return app
