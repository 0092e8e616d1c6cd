"""The service that only takes callbacks in: no API, no gallery, no bucket, no gateway that is spoken to.

It is the one part that strangers can reach, so it is given only what proves a callback, and the ledger.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware

from receiver.api.health import Health
from receiver.api.metrics import MetricsPage
from receiver.callbacks.endpoint import Callbacks
from receiver.callbacks.intake import Intake
from receiver.callbacks.tokens import CallbackTokens
from receiver.gateways.base import Gateway
from receiver.gateways.registry import proving
from receiver.http.admission import Admission
from receiver.http.auth import Access
from receiver.http.middleware import RequestMiddleware, handlers
from receiver.http.rate_limit import Limits
from receiver.http.sessions import Sessions
from receiver.jobs.metrics import from_process
from receiver.keyring import every_secret, secret_keys
from receiver.redaction import Redactor
from receiver.ringing import open_wakeup
from receiver.schedule import system_clock
from receiver.settings import Settings, require
from receiver.telemetry.metrics import Metrics
from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from storage.ledger.wakeup import Topic, WakeupChannel
from storage.models import Clock

log = structlog.get_logger("darkroom.service")

JOIN_S = 1.0


@dataclass(frozen=True, slots=True)
class CallbackService:
    """Everything that takes callbacks in, connected. `start` it once, `stop` it once."""

    settings: Settings
    database: Database
    redactor: Redactor
    intake: Intake
    bell: WakeupChannel
    metrics: Metrics
    callbacks: Callbacks
    health: Health
    page: MetricsPage

    def start(self) -> None:
        """Begin to take callbacks in."""
        self.bell.start()
        self.intake.start()
        log.info("started", only="callbacks", url=self.settings.public_url)

    def stop(self) -> None:
        """Write what came, and end."""
        self.intake.stop()
        self.bell.stop(JOIN_S)
        self.database.close()

    def cancel_waiters(self) -> None:
        """Nobody waits here."""

    def limit_waiters(self, connections: int) -> None:
        """Nobody waits here, so callbacks have all connections."""

    def asgi(self) -> Starlette:
        """The ASGI application; its lifespan starts and stops the service."""

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            self.start()
            try:
                yield
            finally:
                self.stop()

        app = Starlette(
            routes=[route for part in (self.callbacks, self.health, self.page) for route in part.routes()],
            middleware=[Middleware(RequestMiddleware, metrics=self.metrics)],
            exception_handlers=handlers(),
            lifespan=lifespan,
        )
        app.router.redirect_slashes = False
        return app


def build_callbacks(settings: Settings, *, clock: Clock = system_clock) -> CallbackService:
    """Connect the parts, and check that they can be used.

    Raises SettingsError, or the storage errors Misconfigured and Unavailable, each saying what to change.
    """
    require(settings, only_callbacks=True)
    keys, gateways = secret_keys(settings), proving(settings)
    access = Access(token.get_secret_value() for token in settings.api_tokens)
    limits = Limits(settings.limits, clock)
    redactor, metrics = Redactor([*every_secret(settings), *keys]), Metrics(gateways)
    database = Database.open(settings.ledger_url)
    ledger, bell = Ledger(database, clock), open_wakeup(database, metrics)
    intake = Intake(ledger, lambda: bell.notify(Topic.WORK), metrics)
    metrics.watch(from_process(intake.waiting))
    return CallbackService(
        settings=settings,
        database=database,
        redactor=redactor,
        intake=intake,
        bell=bell,
        metrics=metrics,
        callbacks=Callbacks(
            intake,
            gateways,
            CallbackTokens(keys, max_age_s=settings.callbacks.lifetime, clock=clock),
            max_bytes=settings.callbacks.max_bytes,
            limits=limits,
            redactor=redactor,
            clock=clock,
            metrics=metrics,
        ),
        health=Health({"ledger": ledger.ping}, [lambda: _unproven(gateways)]),
        page=MetricsPage(metrics, Admission(access, limits, Sessions(access, keys, clock))),
    )


def _unproven(gateways: Mapping[str, Gateway]) -> dict[str, str]:
    if "apiframe" in gateways:
        return {}
    key = "DARKROOM_GATEWAYS__APIFRAME__API_KEY"
    return {"apiframe": f"Its callbacks are refused here: {key}, with which they are signed, is not set."}
