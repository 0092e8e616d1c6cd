"""Connect the parts: settings in, service out. Nothing is connected anywhere else.

What only some roles need is imported where it is connected, so that no process loads more than its role has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

import structlog
from starlette.routing import Route

from receiver.api.health import (
    Check,
    Health,
    bucket_warnings,
    held_results,
    oldest_result,
    worker_away_s,
    worker_seen,
)
from receiver.api.metrics import MetricsPage
from receiver.callbacks.endpoint import Callbacks
from receiver.callbacks.intake import Intake
from receiver.callbacks.tokens import CallbackUrls
from receiver.errors import MENDABLE
from receiver.http.admission import Admission
from receiver.http.auth import Access
from receiver.http.limits import Limits
from receiver.http.middleware import handlers
from receiver.http.prefix import check_prefix
from receiver.http.routing import Served, routes_of
from receiver.http.server import Connections
from receiver.http.sessions import Sessions
from receiver.jobs.metrics import from_held, from_ledger, from_pauses, from_process, from_results
from receiver.keyring import secret_keys
from receiver.opening import Opening, Part
from receiver.resources import (
    Bucket,
    Factories,
    Outbound,
    Resources,
    connect_bucket,
    connect_gateways,
    connect_keys,
    connect_resources,
    notify_policy,
)
from receiver.schedule import Timing, system_clock
from receiver.service import JobParts, Role, Service, Web
from receiver.settings import DownloadSettings, Settings, WorkerSettings, require
from receiver.telemetry.metrics import Metrics
from storage.archive.keys import Keys
from storage.errors import Misconfigured, StorageError
from storage.ledger.backlog import Backlog
from storage.ledger.circuits import Circuits
from storage.ledger.database import Database
from storage.ledger.events import KEPT_MS, Events
from storage.ledger.fillings import Fillings
from storage.ledger.leases import Workers
from storage.ledger.notifications import Notifications
from storage.ledger.wakeup import Topic, WakeupChannel
from storage.models import Clock, Job

if TYPE_CHECKING:
    from receiver.api.notifications import NotificationRoutes
    from receiver.api.subscriptions import Subscriptions
    from receiver.download.downloader import Downloader
    from receiver.http.bucket_threads import BucketThreads
    from receiver.jobs.circuit_breaker import CircuitBreaker
    from receiver.jobs.context import JobContext
    from receiver.jobs.steps import Steps
    from receiver.jobs.submit import Submitter
    from receiver.notifications.sender import Notifier
    from receiver.notifications.url_policy import NotifyPolicy
    from receiver.thumbnails.cache import Thumbnails
    from storage.search.ids import Ids

log = structlog.get_logger("darkroom.wakeup")


def build(
    settings: Settings,
    *,
    role: Role = Role.ALL,
    clock: Clock = system_clock,
    timing: Timing | None = None,
    factories: Factories | None = None,
) -> Service:
    """Connect the parts of a role; the ledger and the bucket are opened by `Service.start`.

    Raises SettingsError or Misconfigured, each saying what to change.
    """
    only_callbacks = role is Role.CALLBACKS
    require(settings, only_callbacks=only_callbacks)
    admission = _admission(settings, clock, api=not only_callbacks)
    factories = factories or Factories()
    timing = timing or _timing(settings.worker)
    if only_callbacks:
        resources = connect_resources(settings, clock, factories, only_callbacks=True)
        return _service(_Base(settings, role, clock, timing, factories, resources, admission), None)
    policy, outbound = notify_policy(settings), Outbound.of(settings)
    bucket = connect_bucket(settings, factories, outbound)
    resources = connect_resources(settings, clock, factories, webhook_secrets=policy.secrets)
    base = _Base(settings, role, clock, timing, factories, resources, admission)
    return _service(base, _jobs(base, bucket, outbound, policy))


@dataclass
class _Base:
    """What the parts of every role share."""

    settings: Settings
    role: Role
    clock: Clock
    timing: Timing
    factories: Factories
    resources: Resources
    admission: Admission

    def __post_init__(self) -> None:
        database = self.resources.database
        self.metrics = Metrics(self.resources.gateways)
        self.wakeup = _wakeup(self.resources.listening, self.metrics)
        self.backlog = Backlog(database, self.clock)
        self.circuits = Circuits(database, self.clock)
        self.notifications = Notifications(database, self.clock)
        self.workers = Workers(database)

    def oldest_result_at(self) -> int | None:
        """Return when the oldest result became known that waits for nobody to mend it."""
        return self.backlog.oldest_ready_at(without=MENDABLE)


def _service(base: _Base, jobs: JobParts | None) -> Service:
    settings, resources, limits = base.settings, base.resources, base.settings.limits
    arrived = _arrived(jobs, base.wakeup)
    intake = Intake(resources.ledger, arrived, base.metrics)
    base.metrics.watch(from_process(intake.waiting))
    keys = connect_keys(settings, resources.gateways, base.clock)
    callbacks = Callbacks(
        intake,
        resources.gateways,
        resources.tokens,
        keys,
        max_bytes=settings.callbacks.max_bytes,
        limits=base.admission.limits,
        redactor=resources.redactor,
        clock=base.clock,
        metrics=base.metrics,
        accept_incomplete=settings.ledger.accept_incomplete,
    )
    health = _health(base, jobs)
    public = [callbacks] if base.role in {Role.ALL, Role.CALLBACKS} else []
    routes = routes_of(base.admission, *public, health, MetricsPage(base.metrics))
    if jobs is not None and base.role in {Role.ALL, Role.API}:
        web = _api(base, jobs, health, arrived, routes)
    else:
        web = Web(routes, handlers())
    check_prefix(settings.prefix, [route for route in web.routes if isinstance(route, Route)])
    return Service(
        role=base.role,
        url=settings.public_url,
        connections=Connections(limits.connections, limits.head_timeout, settings.trusted_proxies),
        resources=resources,
        opening=_opening(base, jobs),
        metrics=base.metrics,
        wakeup=base.wakeup,
        intake=intake,
        callbacks=callbacks,
        keys=keys,
        health=health,
        web=web,
        prefix=settings.prefix,
        origins=settings.cors_origins,
        jobs=jobs,
    )


def _opening(base: _Base, jobs: JobParts | None) -> Opening:
    database = base.resources.database
    parts = [Part("ledger", database.gate, database.migrate)]
    if jobs is None:
        return Opening(parts, base.timing.open_wait)
    parts.append(Part("bucket", jobs.bucket.store.gate, jobs.bucket.open))
    return Opening(parts, base.timing.open_wait, jobs.ledger_check.begin)


def _tidying(database: Database, events: Events, clock: Clock) -> Callable[[], int]:
    fillings = Fillings(database)
    return lambda: fillings.fill() or events.forget(clock() - KEPT_MS)


def _jobs(base: _Base, bucket: Bucket, outbound: Outbound, policy: NotifyPolicy) -> JobParts:
    """Connect what submits, downloads, archives and notifies."""
    from receiver.api.subscriptions import Subscriptions
    from receiver.jobs.cancel import Canceller
    from receiver.jobs.circuit_breaker import CircuitBreaker
    from receiver.jobs.context import JobContext
    from receiver.jobs.retry import Retrier
    from receiver.jobs.submit import Submitter
    from receiver.jobs.worker import Worker
    from receiver.jobs.worker_processes import WorkerProcesses
    from receiver.ledger_check import LedgerCheck
    from receiver.missing_images import MissingImages

    settings, resources, clock, metrics = base.settings, base.resources, base.clock, base.metrics
    timing = base.timing
    ledger, gateways, events = resources.ledger, resources.gateways, Events(resources.database)
    client, sender = connect_gateways(settings, base.factories, outbound)
    breaker = CircuitBreaker(base.circuits, timing, resources.redactor, clock)
    waiting, each = settings.limits.waiting, settings.limits.waiting_token
    subscriptions = Subscriptions(events, metrics, most=waiting, most_each=each)
    context = JobContext(
        ledger, gateways, sender, breaker, resources.redactor, timing=timing, clock=clock, metrics=metrics
    )
    urls = CallbackUrls(settings.public_url, resources.tokens)
    ledger_check = LedgerCheck(bucket.archive, ledger, accepted=settings.ledger.accept_incomplete)
    missing = MissingImages(bucket.archive, ledger)
    submitter = Submitter(context, urls, policy.check, policy.default, bucket.keys.faults, ledger_check.check)
    downloader = _downloader(settings.download, outbound)
    notifier = _notifier(base, outbound, policy)
    moved = _moved(subscriptions, notifier, base.wakeup)
    worker = Worker(
        context,
        _steps(base, bucket, submitter, downloader, context).run,
        concurrency=settings.worker.concurrency,
        moved=moved,
        forget=_tidying(resources.database, events, clock),
    )
    _watch_jobs(base, breaker)
    away_s = worker_away_s(base.workers.last_seen_at, clock)
    metrics.watch(lambda: {"darkroom_worker_away_seconds": away_s()})
    return JobParts(
        bucket=bucket,
        missing=missing,
        ledger_check=ledger_check,
        worker_away_s=away_s,
        client=client,
        breaker=breaker,
        submitter=submitter,
        retrier=Retrier(context, missing.check),
        canceller=Canceller(context, moved),
        downloader=downloader,
        worker=worker,
        threads=settings.worker.concurrency,
        processes=WorkerProcesses(base.wakeup),
        subscriptions=subscriptions,
        notifier=notifier,
    )


def _watch_jobs(base: _Base, breaker: CircuitBreaker) -> None:
    metrics, ledger = base.metrics, base.resources.ledger
    metrics.watch(from_ledger(ledger, base.backlog, base.clock))
    metrics.watch(from_results(base.oldest_result_at, base.clock))
    metrics.watch(from_held(base.backlog))
    metrics.watch(from_pauses(breaker.paused))


def _api(
    base: _Base, jobs: JobParts, health: Health, arrived: Callable[[], None], others: Sequence[Served]
) -> Web:
    """Connect the API and the gallery; `others` are the routes that are described with them."""
    from receiver.api.batch import BatchRoutes
    from receiver.api.events import EventsPage
    from receiver.api.images import Links
    from receiver.api.jobs import Api
    from receiver.api.models import ModelRoutes
    from receiver.api.openapi import Described
    from receiver.api.usage import Counting
    from receiver.gallery.routes import gallery
    from receiver.http.bucket_threads import BucketThreads
    from storage.search.facets import Facets
    from storage.search.ids import Ids
    from storage.search.search import Search
    from storage.search.usage import Usage

    settings, admission, clock, database = base.settings, base.admission, base.clock, base.resources.database
    search, facets, usage, turns = Search(database), Facets(database), Usage(database), BucketThreads()
    store, ids = jobs.bucket.store, Ids(database)
    thumbnails, queued = _thumbnails(base, jobs, turns), _queued(arrived, jobs.subscriptions)
    api = Api(
        ledger=base.resources.ledger,
        search=search,
        ids=ids,
        circuits=base.circuits,
        notifications=base.notifications,
        submitter=jobs.submitter,
        retrier=jobs.retrier,
        canceller=jobs.canceller,
        admission=admission,
        waiters=jobs.subscriptions,
        store_facts=lambda: jobs.bucket.facts,
        queued=queued,
        links=settings.links,
        checks=_states(base, jobs),
        clock=clock,
    )
    notifications = _notifications(base, jobs.notifier, ids)
    routes = routes_of(
        admission,
        api,
        BatchRoutes(base.resources.ledger, search, jobs.submitter, admission, queued, settings.links),
        Links(search, store, jobs.missing, thumbnails, turns, settings.s3.link_lifetime),
        Counting(facets, usage, clock),
        ModelRoutes(base.resources.gateways),
        EventsPage(jobs.subscriptions, ids),
        notifications,
        ids=ids,
    )
    described = Described([*routes, *others], admission, settings.prefix)
    frame, pages = gallery(
        *(api, notifications, facets, usage, jobs.missing, health, turns),
        public_url=settings.public_url,
        prefix=settings.prefix,
        max_upload=settings.download.max_bytes,
    )
    return Web([*described.routes, *pages], frame.handlers(handlers()), thumbnails)


def _notifications(base: _Base, notifier: Notifier, ids: Ids) -> NotificationRoutes:
    from receiver.api.notifications import NotificationRoutes

    return NotificationRoutes(
        base.notifications, notifier.trials, base.admission, notifier.wake, base.clock, ids
    )


def _queued(arrived: Callable[[], None], subscriptions: Subscriptions) -> Callable[[], None]:
    """Return what is called when a job is due at once."""

    def queued() -> None:
        arrived()
        subscriptions.moved()

    return queued


def _thumbnails(base: _Base, jobs: JobParts, turns: BucketThreads) -> Thumbnails:
    from receiver.thumbnails.cache import RECIPE, Thumbnails
    from receiver.thumbnails.pool import Thumbnailer
    from storage.archive.thumbnails import ThumbnailStore

    store, max_pixels = jobs.bucket.store, base.settings.download.max_pixels
    kept = ThumbnailStore(store, Keys(prefix=base.settings.s3.prefix), RECIPE)
    pool = (base.factories.thumbnailer or Thumbnailer)()
    return Thumbnails(store, kept, pool, turns, jobs.missing.explained, max_pixels=max_pixels)


def _steps(
    base: _Base, bucket: Bucket, submitter: Submitter, downloader: Downloader, context: JobContext
) -> Steps:
    from receiver.jobs.archive import Archiver
    from receiver.jobs.bulk_poll import BulkPoller
    from receiver.jobs.image_threads import ImageThreads
    from receiver.jobs.reconcile import Reconciler
    from receiver.jobs.steps import Steps

    confirm = {name: ours.confirm for name, ours in base.settings.gateways.configured().items()}
    overview = BulkPoller(base.backlog, context.sender, context.clock)
    reconciler = Reconciler(context, confirm, overview)
    hosts = base.settings.gateways.image_hosts()
    threads = ImageThreads(base.settings.worker.concurrency)
    archiver = Archiver(context, bucket.archive, downloader, reconciler, hosts, threads)
    return Steps(context, submitter, reconciler, archiver)


def _notifier(base: _Base, outbound: Outbound, policy: NotifyPolicy) -> Notifier:
    from receiver.notifications.sender import Notifier, from_notifications
    from receiver.notifications.transport import Poster
    from storage.ledger.outbox import Outbox

    notify = base.settings.notify
    base.metrics.watch(from_notifications(base.notifications, base.clock))
    return Notifier(
        Outbox(base.resources.database, base.clock),
        Poster(
            policy,
            timeout_s=notify.timeout,
            ssl_context=outbound.trust.context,
            proxy=outbound.proxy,
        ),
        policy.secrets,
        timing=base.timing,
        clock=base.clock,
        redactor=base.resources.redactor,
        metrics=base.metrics,
        concurrency=notify.concurrency,
        timeout_s=notify.timeout,
        links=base.settings.links,
    )


def _admission(settings: Settings, clock: Clock, *, api: bool) -> Admission:
    access = Access(token.get_secret_value() for token in settings.api_tokens)
    if api:
        access.refuse_exposure(settings.host, settings.public_url)
    limits = Limits(
        clock,
        api_token=settings.limits.api_token,
        callback_token=settings.limits.callback_token,
        bad_tokens=settings.limits.bad_tokens,
        body_timeout_s=settings.limits.body_timeout,
    )
    sessions = Sessions(access, secret_keys(settings), clock, prefix=settings.prefix)
    return Admission(access, limits, sessions)


def _health(base: _Base, jobs: JobParts | None) -> Health:
    ledger, clock = base.resources.ledger, base.clock
    if jobs is None:
        unverified = base.settings.gateways.unverified
        return Health({"ledger": ledger.ping}, [lambda: unverified(ledger.job_counts())])
    from receiver.notifications.sender import warnings_of

    limit_s = base.settings.ready.oldest_result
    results = oldest_result(base.oldest_result_at, limit_s=limit_s, clock=clock)
    checks = {"ledger": ledger.ping, "archive": jobs.bucket.store.ping, "results": results}
    bucket = bucket_warnings(lambda: jobs.bucket.facts)
    held = held_results(lambda: base.backlog.held(MENDABLE))
    checks |= _states(base, jobs)
    notifications = warnings_of(base.notifications, clock)
    return Health(checks, [jobs.breaker.warnings, bucket, held, notifications, jobs.ledger_check.warnings])


def _states(base: _Base, jobs: JobParts) -> dict[str, Check]:
    """Return the checks that `/v1/status` has too: they ask the ledger only, or what is known already."""
    limit_s = base.settings.ready.no_worker
    return {"history": jobs.ledger_check.check, "workers": worker_seen(jobs.worker_away_s, limit_s=limit_s)}


def _wakeup(database: Database, metrics: Metrics) -> WakeupChannel:
    def lost(error: Exception) -> None:
        if not isinstance(error, Misconfigured):
            metrics.count("darkroom_ledger_errors_total", part="wakeup")
        why = str(error) if isinstance(error, StorageError) else type(error).__name__
        log.warning("other processes are not heard; the ledger is looked at once a second", why=why)

    return WakeupChannel(database, lost)


def _moved(subscriptions: Subscriptions, notifier: Notifier, wakeup: WakeupChannel) -> Callable[[Job], None]:
    """Return what is called with a job after each of its steps."""

    def moved(job: Job) -> None:
        subscriptions.moved(job.id)
        wakeup.notify(Topic.EVENTS)
        if job.status.terminal and job.notify_url is not None:
            notifier.wake()

    return moved


def _arrived(jobs: JobParts | None, wakeup: WakeupChannel) -> Callable[[], None]:
    """Return what is called when there is work: it wakes this process' worker, or another if that is busy."""
    if jobs is None:
        return lambda: wakeup.notify(Topic.WORK)
    worker = jobs.worker

    def arrived() -> None:
        worker.wake()
        if worker.busy:
            wakeup.notify(Topic.WORK)
        wakeup.notify(Topic.EVENTS)

    wakeup.on(Topic.WORK, worker.wake)
    wakeup.on(Topic.EVENTS, jobs.subscriptions.moved)
    return arrived


def _timing(worker: WorkerSettings) -> Timing:
    later = Timing().callback_polls[1:]
    return Timing(callback_polls=(worker.first_poll, *later), poll_only=worker.poll_interval)


def _downloader(download: DownloadSettings, outbound: Outbound) -> Downloader:
    from receiver.download.downloader import Downloader, DownloadPolicy

    policy = DownloadPolicy(
        allow_networks=tuple(ip_network(network) for network in download.allow_networks),
        max_bytes=download.max_bytes,
        max_pixels=download.max_pixels,
        timeout_s=download.timeout,
    )
    return Downloader(policy, ssl_context=outbound.trust.context, proxy=outbound.proxy)
