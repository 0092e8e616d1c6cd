"""The one place where the parts are connected: settings in, service and ASGI application out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TypedDict

import httpx
import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware

from receiver.access import Access
from receiver.api import Api
from receiver.callbacks import Callbacks
from receiver.collect import Collector
from receiver.download import Downloader, DownloadPolicy
from receiver.edge import Edge, handlers
from receiver.gateways.base import Gateway
from receiver.gateways.table import adapters, configured
from receiver.health import Health
from receiver.intake import Intake
from receiver.keyring import every_secret, secret_keys
from receiver.makers import USUAL, Makers
from receiver.reconcile import Reconciler
from receiver.redaction import Redactor
from receiver.sending import Sender
from receiver.settings import S3Settings, Settings, require
from receiver.signing import CallbackTokens
from receiver.submit import CallbackUrls, Submitter
from receiver.timing import Timing
from receiver.waiting import Waiters
from receiver.worker import Step, Worker
from storage.archive import Archive
from storage.database import Database
from storage.keys import Keys
from storage.ledger import Ledger
from storage.objects import ObjectStore, StoreFacts
from storage.records import Clock, Job, Status
from storage.search import Search

log = structlog.get_logger("darkroom.app")

STOP_S = 4.0
"""How long steps in hand may take to finish once the process was asked to stop."""
JOIN_S = 1.0


def system_clock() -> int:
    """The time now, in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered, and where."""

    database: Database
    ledger: Ledger
    search: Search
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
    downloader: Downloader
    intake: Intake
    worker: Worker
    waiters: Waiters
    callbacks: Callbacks
    api: Api
    health: Health

    def start(self, *, work: bool) -> None:
        """Begin to take callbacks in and, if `work`, to work."""
        self.intake.start()
        if work:
            self.worker.start()
        log.info("started", work=work, worker=self.worker.name, url=self.settings.public_url)

    def stop(self, *, work: bool) -> None:
        """Stop cleanly: nothing new is begun, and what is in hand is finished or given back."""
        self.waiters.close()
        if work:
            self.worker.stop(STOP_S)
        self.intake.stop()
        self.downloader.close()
        self.outside.client.close()
        if work:
            self.worker.join(JOIN_S)
        self.memory.database.close()

    def asgi(self, *, work: bool) -> Starlette:
        """The ASGI application; its lifespan starts and stops the service."""

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            self.start(work=work)
            try:
                yield
            finally:
                self.stop(work=work)

        app = Starlette(
            routes=[*self.callbacks.routes(), *self.api.routes(), *self.health.routes()],
            middleware=[Middleware(Edge)],
            exception_handlers=handlers(),
            lifespan=lifespan,
        )
        # A redirect would swallow callbacks: senders do not follow one.
        app.router.redirect_slashes = False
        return app


def build(
    settings: Settings,
    *,
    clock: Clock = system_clock,
    timing: Timing | None = None,
    makers: Makers = USUAL,
) -> Service:
    """Connect the parts, and check that they can be used.

    Raises SettingsError, or the storage errors Misconfigured and Unavailable, each saying what to change.
    """
    require(settings)
    access = Access(token.get_secret_value() for token in settings.api_tokens)
    access.refuse_exposure(settings.host, settings.public_url)
    outside = _outside(settings, clock, makers)
    memory = _memory(settings, clock, makers)
    timing = timing or _timing(settings)
    waiters = Waiters()
    shared: _Shared = {"redactor": outside.redactor, "timing": timing, "clock": clock}
    submitter = Submitter(memory.ledger, outside.gateways, outside.sender, outside.urls, **shared)
    downloader = Downloader(_download_policy(settings))
    worker = Worker(
        memory.ledger,
        _steps(settings, memory, outside, submitter, downloader, shared),
        concurrency=settings.worker.concurrency,
        clock=clock,
        moved=waiters.moved,
        full=outside.sender.full,
    )
    intake = Intake(memory.ledger, worker.wake)
    return Service(
        settings=settings,
        memory=memory,
        outside=outside,
        downloader=downloader,
        intake=intake,
        worker=worker,
        waiters=waiters,
        callbacks=Callbacks(
            intake,
            outside.gateways,
            outside.urls.tokens,
            max_bytes=settings.callbacks.max_bytes,
            redactor=outside.redactor,
            clock=clock,
        ),
        api=Api(
            ledger=memory.ledger,
            search=memory.search,
            store=memory.store,
            submitter=submitter,
            access=access,
            waiters=waiters,
            queued=worker.wake,
            link_lifetime_s=settings.s3.link_lifetime,
            clock=clock,
        ),
        health=Health({"ledger": memory.ledger.ping, "archive": memory.store.ping}),
    )


class _Shared(TypedDict):
    """What every step of a job's life is given."""

    redactor: Redactor
    timing: Timing
    clock: Clock


def _timing(settings: Settings) -> Timing:
    worker = settings.worker
    later = Timing().callback_polls[1:]
    return Timing(callback_polls=(worker.first_poll, *later), poll_only=worker.poll_interval)


def _memory(settings: Settings, clock: Clock, makers: Makers) -> Memory:
    store = _store(settings.s3, makers)
    facts = store.check(
        create=settings.s3.create_bucket, probe_prefix=f"{settings.s3.prefix}darkroom-probes/"
    )
    _warn(facts)
    database = makers.database(settings.ledger_url)
    keys = Keys(prefix=settings.s3.prefix, template=settings.key_template)
    archive = Archive(store, keys, trust_checksums=facts.checks_sha256 and facts.returns_sha256)
    return Memory(database, makers.ledger(database, clock), Search(database), store, archive)


def _outside(settings: Settings, clock: Clock, makers: Makers) -> Outside:
    keys = secret_keys(settings)
    client = httpx.Client(timeout=httpx.Timeout(30, connect=10), trust_env=False, follow_redirects=False)
    concurrency = {name: ours.concurrency for name, ours in configured(settings).items()}
    tokens = CallbackTokens(keys, max_age_s=settings.callbacks.lifetime, clock=clock)
    return Outside(
        gateways=adapters(settings),
        client=client,
        sender=makers.sender(client, concurrency),
        urls=CallbackUrls(settings.public_url, tokens),
        redactor=Redactor([*every_secret(settings), *keys]),
    )


def _steps(
    settings: Settings,
    memory: Memory,
    outside: Outside,
    submitter: Submitter,
    downloader: Downloader,
    shared: _Shared,
) -> dict[Status, Step]:
    """What comes next for a job, by where it is."""
    ledger = memory.ledger
    confirm = {name: ours.confirm for name, ours in configured(settings).items()}
    reconciler = Reconciler(ledger, outside.gateways, outside.sender, confirm=confirm, **shared)
    collector = Collector(ledger, memory.archive, downloader, reconciler, outside.gateways, **shared)

    def queued(job: Job, worker: str) -> Job:
        # A submission that seemed to fail may have been taken all the same; then its callback says so.
        if job.moved_at(Status.SUBMITTING) is not None and ledger.pending_deliveries(job.id):
            job = ledger.move(job, Status.SUBMITTING, worker, keep_lease=True)
            return reconciler.advance(job, worker)
        return submitter.send(job, worker)

    def submitting(job: Job, worker: str) -> Job:
        if ledger.pending_deliveries(job.id):
            return reconciler.advance(job, worker)
        return submitter.recover(job, worker)

    return {
        Status.QUEUED: queued,
        Status.SUBMITTING: submitting,
        Status.RUNNING: reconciler.advance,
        Status.READY: collector.collect,
    }


def _store(s3: S3Settings, makers: Makers) -> ObjectStore:
    assert s3.bucket is not None
    return makers.store(
        bucket=s3.bucket,
        endpoint=s3.endpoint,
        public_endpoint=s3.public_endpoint,
        region=s3.region,
        access_key=s3.access_key.get_secret_value() if s3.access_key else None,
        secret_key=s3.secret_key.get_secret_value() if s3.secret_key else None,
        checksums=s3.checksums,
    )


def _download_policy(settings: Settings) -> DownloadPolicy:
    download = settings.download
    return DownloadPolicy(
        allow_networks=tuple(ip_network(network) for network in download.allow_networks),
        max_bytes=download.max_bytes,
        max_pixels=download.max_pixels,
        timeout_s=download.timeout,
    )


def _warn(facts: StoreFacts) -> None:
    if not facts.create_only:
        log.warning("the store ignores If-None-Match, so two writers of one key are not kept apart")
    if not (facts.checks_sha256 and facts.returns_sha256):
        log.warning("the store does not check SHA-256 itself, so each image is read back in full")
