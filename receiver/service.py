"""Start and stop the service: its parts, connected."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import ExceptionHandler

from receiver.api.health import Health
from receiver.callbacks.endpoint import CALLBACK, Callbacks
from receiver.callbacks.intake import Intake
from receiver.callbacks.keys import PublicKeys
from receiver.http.cors import Cors
from receiver.http.middleware import AtOnce, RequestMiddleware
from receiver.http.prefix import PathPrefix
from receiver.http.routing import Served
from receiver.http.server import Connections
from receiver.opening import Opening
from receiver.resources import Bucket, Resources
from receiver.telemetry.metrics import Metrics
from storage.ledger.wakeup import WakeupChannel

if TYPE_CHECKING:
    import httpx

    from receiver.api.subscriptions import Subscriptions
    from receiver.download.downloader import Downloader
    from receiver.jobs.cancel import Canceller
    from receiver.jobs.circuit_breaker import CircuitBreaker
    from receiver.jobs.retry import Retrier
    from receiver.jobs.submit import Submitter
    from receiver.jobs.worker import Worker
    from receiver.jobs.worker_processes import WorkerProcesses
    from receiver.ledger_check import LedgerCheck
    from receiver.missing_images import MissingImages
    from receiver.notifications.sender import Notifier
    from receiver.processes import Children
    from receiver.thumbnails.cache import Thumbnails

log = structlog.get_logger("darkroom.service")

STOP_S = 4.0
"""How long steps in hand may take to finish once the process was asked to stop."""
NOTIFY_STOP_S = 2.0
JOIN_S = 1.0


class Role(StrEnum):
    """What a process serves over HTTP, beside health and metrics."""

    ALL = "all"
    """Callbacks, the API and the gallery."""
    CALLBACKS = "callbacks"
    """Callbacks alone. Strangers reach it, so it has the ledger and what verifies callbacks, nothing else."""
    API = "api"
    """The API and the gallery."""
    WORK = "work"
    """Nothing: it works on jobs."""


@dataclass(frozen=True, slots=True)
class JobParts:
    """What submits, downloads, archives and notifies; every role has it but `CALLBACKS`."""

    bucket: Bucket
    missing: MissingImages
    ledger_check: LedgerCheck
    worker_away_s: Callable[[], float]
    """For how many seconds no worker was seen, in any process."""
    client: httpx.Client
    breaker: CircuitBreaker
    submitter: Submitter
    retrier: Retrier
    canceller: Canceller
    downloader: Downloader
    worker: Worker
    threads: int
    """Those of the worker in each process that works."""
    processes: WorkerProcesses
    subscriptions: Subscriptions
    notifier: Notifier

    def start(self, metrics: Metrics, *, work: bool) -> None:
        """Start the background threads and, if `work`, the worker."""
        own = self.threads if work else 0
        metrics.watch(lambda: {"darkroom_worker_slots": own + self.threads * self.processes.running})
        if work:
            self.worker.start()
            self.notifier.start()

    def stop(self, *, work: bool) -> None:
        """Begin nothing new; finish what is in hand, or release its lease."""
        if work:
            self.worker.stop(STOP_S)
            self.notifier.stop(NOTIFY_STOP_S)
        self.processes.stop(STOP_S + NOTIFY_STOP_S + JOIN_S)
        self.downloader.close()
        self.client.close()
        if work:
            self.worker.join(JOIN_S)


@dataclass(frozen=True, slots=True)
class Web:
    """What a role serves."""

    routes: Sequence[BaseRoute]
    error_handlers: Mapping[Any, ExceptionHandler]
    thumbnails: Thumbnails | None = None
    """To be closed when the service stops."""


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the service. `start` it once, `stop` it once."""

    role: Role
    url: str | None
    """Where gateways reach it."""
    connections: Connections
    resources: Resources
    opening: Opening
    metrics: Metrics
    wakeup: WakeupChannel
    intake: Intake
    callbacks: Callbacks
    keys: PublicKeys
    health: Health
    web: Web
    prefix: str
    """The path before all others: `/photos`, or nothing."""
    origins: Sequence[str]
    """Whose pages may use the API."""
    jobs: JobParts | None
    """None for the role `CALLBACKS`."""

    def start(self, *, work: bool = False) -> None:
        """Start to record callbacks and, if `work`, to work on jobs; open what is away once it is there."""
        self.opening.start()
        self.wakeup.start()
        self.intake.start()
        self.keys.start()
        if self.jobs is not None:
            self.jobs.start(self.metrics, work=work)
        log.info("started", role=self.role, work=work, url=self.url)

    def cancel_waiters(self) -> None:
        """Answer requests that wait for a job or a thumbnail, as the service is about to stop."""
        if self.jobs is not None:
            self.jobs.processes.leave()
            self.jobs.subscriptions.close()
        if self.web.thumbnails is not None:
            self.web.thumbnails.close()

    def stop(self, *, work: bool = False) -> None:
        """Stop cleanly: nothing new is begun, and what is in hand is finished or released."""
        self.cancel_waiters()
        self.opening.stop()
        if self.jobs is not None:
            self.jobs.stop(work=work)
        self.intake.stop()
        self.wakeup.stop(JOIN_S)
        self.resources.listening.close()
        self.resources.database.close()

    def on_failure(self, failed: Callable[[], None]) -> None:
        """Call something once it is certain that the service can never work. Before `start`."""
        self.opening.on_failure(failed)

    def raise_failure(self) -> None:
        """Raise Unusable if that is so."""
        self.opening.raise_failure()

    def limit_waiters(self, connections: int) -> None:
        """Let waiting requests hold half of the connections at most."""
        if self.jobs is not None:
            self.jobs.subscriptions.at_most(connections // 2)

    def at_once(self) -> AtOnce | None:
        """Return what serves the callbacks that are here whole, if they are served here."""
        routes = [one for one in self.web.routes if isinstance(one, Served) and one.operation is CALLBACK]
        return AtOnce(routes[0], self.callbacks.receive_whole, self.metrics, self.prefix) if routes else None

    def asgi(self, *, work: bool = False, apart: Children | None = None) -> Starlette:
        """Return the ASGI application of the role; its lifespan starts and stops the service.

        With `apart`, processes of their own do the work: these, which were forked before.
        """
        here = work and apart is None

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            self.start(work=here)
            try:
                if self.jobs is not None and work and apart is not None:
                    self.jobs.processes.start(apart)
                yield
            finally:
                self.stop(work=here)

        shared = [Middleware(Cors, origins=self.origins)] if self.origins else []
        below = [Middleware(PathPrefix, prefix=self.prefix)] if self.prefix else []
        app = Starlette(
            routes=list(self.web.routes),
            middleware=[*below, *shared, Middleware(RequestMiddleware, metrics=self.metrics)],
            exception_handlers=dict(self.web.error_handlers),
            lifespan=lifespan,
        )
        # A redirect would swallow callbacks: senders do not follow one.
        app.router.redirect_slashes = False
        return app
