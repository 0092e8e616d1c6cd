"""All that is served over HTTP: the routes of every part, and the ASGI application that has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware

from receiver.api.events import EventsPage
from receiver.api.facets import Counting
from receiver.api.health import Health
from receiver.api.images import Links
from receiver.api.jobs import Api
from receiver.api.metrics import MetricsPage
from receiver.api.openapi import Described
from receiver.api.subscriptions import Subscriptions
from receiver.api.usage import UsageApi
from receiver.callbacks.endpoint import Callbacks
from receiver.callbacks.intake import Intake
from receiver.gallery.pages import Gallery
from receiver.gallery.wiring import gallery
from receiver.http.admission import Admission
from receiver.http.bucket_threads import BucketTurns
from receiver.http.middleware import RequestMiddleware, handlers
from receiver.http.routing import Served
from receiver.jobs.retry import Retrier
from receiver.jobs.submit import Submitter
from receiver.makers import Makers
from receiver.memory import Memory
from receiver.outside import Outside
from receiver.roles import Role
from receiver.settings import Settings
from receiver.telemetry.metrics import Metrics
from receiver.thumbnails.cache import RECIPE, Thumbnails
from storage.archive.keys import Keys
from storage.archive.thumbnails import ThumbnailStore

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


class Part(Protocol):
    """Something that serves routes."""

    def routes(self) -> list[Served]:
        """The routes of this part."""


@dataclass(frozen=True, slots=True)
class Surface:
    """Everything that is served."""

    callbacks: Callbacks
    api: Api
    links: Links
    others: Sequence[Part]
    gallery: Gallery
    health: Health
    metrics: Metrics
    page: MetricsPage

    def app(self, lifespan: Lifespan, role: Role) -> Starlette:
        """The ASGI application of a role."""
        api = role in {Role.ALL, Role.API}
        watched: Sequence[Part] = (self.health, self.page)
        ours: Sequence[Part] = (self.api, self.links, *self.others) if api else ()
        if role is Role.ALL:
            ours = (self.callbacks, *ours)
        routes = [route for part in (*ours, *watched) for route in part.routes()]
        described = Described(routes, tokens=not self.api.admission.access.open).routes
        app = Starlette(
            routes=[*described, *(self.gallery.routes() if api else ())],
            middleware=[Middleware(RequestMiddleware, metrics=self.metrics)],
            exception_handlers=self.gallery.handlers(handlers()) if api else handlers(),
            lifespan=lifespan,
        )
        # A redirect would swallow callbacks: senders do not follow one.
        app.router.redirect_slashes = False
        return app


@dataclass(frozen=True, slots=True)
class Behind:
    """What the routes lead to."""

    memory: Memory
    outside: Outside
    intake: Intake
    submitter: Submitter
    retrier: Retrier
    waiters: Subscriptions
    wake: Callable[[], None]
    """Wakes the worker."""
    health: Health
    metrics: Metrics


def surface(
    settings: Settings, admission: Admission, behind: Behind, makers: Makers, others: Sequence[Part] = ()
) -> Surface:
    """Connect the parts that serve."""
    memory, clock = behind.memory, behind.submitter.clock
    api = _api(admission, behind)
    bucket = BucketTurns()
    counting, usage = Counting(memory.facets, admission, clock), UsageApi(memory.usage, admission, clock)
    return Surface(
        callbacks=_callbacks(settings, admission, behind),
        api=api,
        links=_links(settings, admission, memory, makers, bucket),
        others=[counting, usage, EventsPage(behind.waiters, admission), *others],
        gallery=gallery(settings, memory, api, behind.health, bucket),
        health=behind.health,
        metrics=behind.metrics,
        page=MetricsPage(behind.metrics, admission),
    )


def _api(admission: Admission, behind: Behind) -> Api:
    def queued() -> None:
        behind.wake()
        behind.waiters.moved()

    return Api(
        ledger=behind.memory.ledger,
        search=behind.memory.search,
        circuits=behind.memory.circuits,
        notifications=behind.memory.notifications,
        submitter=behind.submitter,
        retrier=behind.retrier,
        admission=admission,
        waiters=behind.waiters,
        queued=queued,
        clock=behind.submitter.clock,
    )


def _links(
    settings: Settings, admission: Admission, memory: Memory, makers: Makers, bucket: BucketTurns
) -> Links:
    kept = ThumbnailStore(memory.store, Keys(prefix=settings.s3.prefix), RECIPE)
    max_pixels = settings.download.max_pixels
    return Links(
        search=memory.search,
        store=memory.store,
        archive=memory.archive,
        thumbnails=Thumbnails(memory.store, kept, makers.thumbnailer(), bucket, max_pixels=max_pixels),
        bucket=bucket,
        admission=admission,
        lifetime_s=settings.s3.link_lifetime,
    )


def _callbacks(settings: Settings, admission: Admission, behind: Behind) -> Callbacks:
    return Callbacks(
        behind.intake,
        behind.outside.gateways,
        behind.outside.urls.tokens,
        max_bytes=settings.callbacks.max_bytes,
        limits=admission.limits,
        redactor=behind.outside.redactor,
        clock=behind.submitter.clock,
        metrics=behind.metrics,
    )
