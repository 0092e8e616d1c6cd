"""The one place where the parts are connected: settings in, service and ASGI application out."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_network
from typing import TypedDict

import httpx
import structlog

from receiver.admission import Admission
from receiver.api import Api
from receiver.breaker import Breaker
from receiver.bucket import open_bucket
from receiver.callbacks import Callbacks
from receiver.collect import Collector
from receiver.counting import Counting
from receiver.download import Downloader, DownloadPolicy
from receiver.entrance import entrance
from receiver.events import EventsPage
from receiver.gallery.wiring import gallery
from receiver.gateways.table import adapters, configured
from receiver.health import Health, oldest_result
from receiver.housekeeping import Housekeeper
from receiver.intake import Intake
from receiver.keyring import every_secret, secret_keys
from receiver.links import Links
from receiver.makers import USUAL, Makers
from receiver.measuring import Measured, from_ledger, from_pauses, from_process, from_results
from receiver.metrics import Metrics, MetricsPage
from receiver.overview import Overview
from receiver.reconcile import Reconciler
from receiver.redaction import Redactor
from receiver.retry import Retrier
from receiver.service import Memory, Outside, Service
from receiver.settings import Settings, require
from receiver.signing import CallbackTokens
from receiver.submission import CallbackUrls
from receiver.submit import Submitter
from receiver.thumbnails import RECIPE, Thumbnails
from receiver.timing import Timing
from receiver.usage import UsageApi
from receiver.waiting import Waiters
from receiver.worker import Step, Worker
from storage.archive import Archive
from storage.backlog import Backlog
from storage.circuits import Circuits
from storage.events import KEPT_MS, Events
from storage.facets import Facets
from storage.keys import Keys
from storage.records import Clock, Job, Status
from storage.search import Search
from storage.thumbnails import KeptThumbnails
from storage.usage import Usage

log = structlog.get_logger("darkroom.app")


def system_clock() -> int:
    """The time now, in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


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
    admission = entrance(settings, clock)
    outside = _outside(settings, clock, makers)
    memory = _memory(settings, clock, makers)
    timing = timing or _timing(settings)
    happened = Events(memory.database)
    breaker = Breaker(memory.circuits, timing, outside.redactor, clock)
    metrics = Metrics(outside.gateways)
    waiters = Waiters(happened, settings.limits, metrics)
    shared = _Shared(breaker=breaker, redactor=outside.redactor, timing=timing, clock=clock, metrics=metrics)
    submitter = Submitter(memory.ledger, outside.gateways, outside.sender, outside.urls, **shared)
    downloader = Downloader(_download_policy(settings))
    measured = Measured(metrics, memory.backlog)
    worker = Worker(
        memory.ledger,
        measured.steps(_steps(settings, memory, outside, submitter, downloader, shared)),
        concurrency=settings.worker.concurrency,
        gateways=list(outside.gateways),
        clock=clock,
        moved=waiters.moved,
        full=outside.sender.full,
        metrics=metrics,
    )
    intake = Intake(memory.ledger, worker.wake, metrics)
    _watch(metrics, memory, breaker, intake, measured, clock)
    api = _api(memory, submitter, admission, waiters, _both(worker.wake, waiters.moved))
    health = _health(settings, memory, breaker, clock)
    return Service(
        settings=settings,
        memory=memory,
        outside=outside,
        breaker=breaker,
        retrier=api.retrier,
        downloader=downloader,
        intake=intake,
        worker=worker,
        waiters=waiters,
        callbacks=_callbacks(settings, outside, intake, admission, shared),
        api=api,
        gallery=gallery(settings, memory, api, health),
        links=_links(settings, memory, admission, makers),
        counting=Counting(memory.facets, admission, clock),
        events=EventsPage(waiters, admission),
        housekeeper=Housekeeper({"events forgotten": lambda: happened.forget(clock() - KEPT_MS)}, metrics),
        health=health,
        metrics=metrics,
        page=MetricsPage(metrics, admission),
        usage=UsageApi(memory.usage, admission, clock),
    )


class _Shared(TypedDict):
    """What every step of a job's life is given."""

    breaker: Breaker
    redactor: Redactor
    timing: Timing
    clock: Clock
    metrics: Metrics


def _watch(
    metrics: Metrics, memory: Memory, breaker: Breaker, intake: Intake, measured: Measured, clock: Clock
) -> None:
    metrics.watch(from_ledger(memory.ledger, memory.backlog, clock))
    metrics.watch(from_results(memory.backlog.oldest_ready_at, clock))
    metrics.watch(from_pauses(breaker.paused))
    metrics.watch(from_process(intake.waiting, measured.in_hand))


def _both(one: Callable[[], None], other: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        one()
        other()

    return call


def _api(
    memory: Memory,
    submitter: Submitter,
    admission: Admission,
    waiters: Waiters,
    queued: Callable[[], None],
) -> Api:
    return Api(
        ledger=memory.ledger,
        search=memory.search,
        circuits=memory.circuits,
        submitter=submitter,
        retrier=Retrier(memory.ledger, submitter.gateways, submitter.clock),
        admission=admission,
        waiters=waiters,
        queued=queued,
        clock=submitter.clock,
    )


def _links(settings: Settings, memory: Memory, admission: Admission, makers: Makers) -> Links:
    kept = KeptThumbnails(memory.store, Keys(prefix=settings.s3.prefix), RECIPE)
    return Links(
        search=memory.search,
        store=memory.store,
        archive=memory.archive,
        thumbnails=Thumbnails(
            memory.store, kept, makers.thumbnailer(), max_pixels=settings.download.max_pixels
        ),
        admission=admission,
        lifetime_s=settings.s3.link_lifetime,
    )


def _callbacks(
    settings: Settings, outside: Outside, intake: Intake, admission: Admission, shared: _Shared
) -> Callbacks:
    return Callbacks(
        intake,
        outside.gateways,
        outside.urls.tokens,
        max_bytes=settings.callbacks.max_bytes,
        limits=admission.limits,
        redactor=shared["redactor"],
        clock=shared["clock"],
        metrics=shared["metrics"],
    )


def _health(settings: Settings, memory: Memory, breaker: Breaker, clock: Clock) -> Health:
    results = oldest_result(memory.backlog.oldest_ready_at, limit_s=settings.ready.oldest_result, clock=clock)
    checks = {"ledger": memory.ledger.ping, "archive": memory.store.ping, "results": results}
    return Health(checks, [breaker.warnings])


def _timing(settings: Settings) -> Timing:
    worker = settings.worker
    later = Timing().callback_polls[1:]
    return Timing(callback_polls=(worker.first_poll, *later), poll_only=worker.poll_interval)


def _memory(settings: Settings, clock: Clock, makers: Makers) -> Memory:
    store, facts = open_bucket(settings.s3, makers.store)
    database = makers.database(settings.ledger_url)
    keys = Keys(prefix=settings.s3.prefix, template=settings.key_template)
    return Memory(
        database=database,
        ledger=makers.ledger(database, clock),
        circuits=Circuits(database, clock),
        search=Search(database),
        usage=Usage(database),
        facets=Facets(database),
        backlog=Backlog(database, clock),
        store=store,
        archive=Archive(store, keys, trust_checksums=facts.checks_sha256 and facts.returns_sha256),
    )


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
    overview = Overview(memory.backlog, outside.sender, shared["clock"])
    reconciler = Reconciler(
        ledger, outside.gateways, outside.sender, confirm=confirm, overview=overview, **shared
    )
    collector = Collector(ledger, memory.archive, downloader, reconciler, outside.gateways, **shared)

    def queued(job: Job, worker: str) -> Job:
        # A submission that seemed to fail may have been taken all the same; then its callback says so.
        if job.moved_at(Status.SUBMITTING) is not None and ledger.pending_deliveries(job.id):
            shared["breaker"].not_sent(job.gateway)
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


def _download_policy(settings: Settings) -> DownloadPolicy:
    download = settings.download
    return DownloadPolicy(
        allow_networks=tuple(ip_network(network) for network in download.allow_networks),
        max_bytes=download.max_bytes,
        max_pixels=download.max_pixels,
        max_frames=download.max_frames,
        timeout_s=download.timeout,
    )
