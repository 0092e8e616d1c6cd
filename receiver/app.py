"""The one place where the parts are connected: settings in, service and ASGI application out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import TypedDict

import structlog

from receiver import ringing
from receiver.api.health import Health, oldest_result
from receiver.api.subscriptions import Subscriptions
from receiver.asgi import Behind, surface
from receiver.callbacks.intake import Intake
from receiver.download.downloader import Downloader, DownloadPolicy
from receiver.gateways.registry import configured
from receiver.http.admission import Admission
from receiver.http.auth import Access
from receiver.http.rate_limit import Limits
from receiver.http.sessions import Sessions
from receiver.jobs.archive import Archiver
from receiver.jobs.bulk_poll import BulkPoller
from receiver.jobs.circuit_breaker import CircuitBreaker
from receiver.jobs.cleanup import Housekeeper
from receiver.jobs.metrics import Measured, from_ledger, from_pauses, from_process, from_results
from receiver.jobs.reconcile import Reconciler
from receiver.jobs.retry import Retrier
from receiver.jobs.submit import Submitter
from receiver.jobs.worker import Step, Worker
from receiver.jobs.worker_processes import WorkerProcesses
from receiver.keyring import notify_secrets, secret_keys
from receiver.makers import USUAL, Makers
from receiver.memory import Memory, open_memory
from receiver.notifications.sender import warnings_of
from receiver.notifications.url_policy import NotifyPolicy
from receiver.notify_parts import NotifyParts, notify_parts
from receiver.outside import Outside, open_outside
from receiver.redaction import Redactor
from receiver.schedule import Timing, system_clock
from receiver.service import Service
from receiver.settings import Settings, require
from receiver.telemetry.metrics import Metrics
from storage.ledger.events import KEPT_MS
from storage.models import Clock, Job, Status

log = structlog.get_logger("darkroom.app")


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
    access = _access(settings)
    policy = NotifyPolicy.of(settings.notify, notify_secrets(settings))
    outside = open_outside(settings, clock, makers, policy.secrets)
    memory = open_memory(settings, clock, makers)
    timing = timing or _timing(settings)
    breaker = CircuitBreaker(memory.circuits, timing, outside.redactor, clock)
    metrics = Metrics(outside.gateways)
    waiters = Subscriptions(memory.events, settings.limits, metrics)
    bell = ringing.open_wakeup(memory.database, metrics)
    shared = _Shared(breaker=breaker, redactor=outside.redactor, timing=timing, clock=clock, metrics=metrics)
    sending = (outside.gateways, outside.sender, outside.urls)
    submitter = Submitter(memory.ledger, *sending, **shared, notify=policy, key_faults=memory.keys.faults)
    admission = _admission(settings, access, clock)
    notify = _notify(settings, policy, memory, admission, shared)
    downloader = Downloader(_download_policy(settings))
    steps = notify.notifier.after(_steps(settings, memory, outside, submitter, downloader, shared))
    worker = _worker(settings, memory, outside, steps, ringing.moved(waiters, bell), shared)
    due = ringing.due(worker, waiters, bell)
    intake = Intake(memory.ledger, due, metrics)
    _watch(metrics, memory, breaker, intake, clock)
    retrier = Retrier(memory.ledger, outside.gateways, clock)
    behind = Behind(
        memory=memory,
        outside=outside,
        intake=intake,
        submitter=submitter,
        retrier=retrier,
        waiters=waiters,
        wake=due,
        health=_health(settings, memory, breaker, clock),
        metrics=metrics,
    )
    return Service(
        settings=settings,
        memory=memory,
        outside=outside,
        breaker=breaker,
        retrier=retrier,
        downloader=downloader,
        intake=intake,
        worker=worker,
        workers=WorkerProcesses(settings.worker.processes, bell),
        waiters=waiters,
        bell=bell,
        housekeeper=_housekeeper(memory, metrics, clock),
        notifier=notify.notifier,
        surface=surface(settings, admission, behind, makers, [notify.routes]),
    )


class _Shared(TypedDict):
    """What every step of a job's life is given."""

    breaker: CircuitBreaker
    redactor: Redactor
    timing: Timing
    clock: Clock
    metrics: Metrics


def _worker(
    settings: Settings,
    memory: Memory,
    outside: Outside,
    steps: Mapping[Status, Step],
    moved: Callable[[str], None],
    shared: _Shared,
) -> Worker:
    return Worker(
        memory.ledger,
        Measured(shared["metrics"], memory.backlog).steps(steps),
        concurrency=settings.worker.concurrency,
        sending=outside.sender.limits,
        clock=shared["clock"],
        moved=moved,
        full=outside.sender.full,
        metrics=shared["metrics"],
    )


def _watch(metrics: Metrics, memory: Memory, breaker: CircuitBreaker, intake: Intake, clock: Clock) -> None:
    metrics.watch(from_ledger(memory.ledger, memory.backlog, clock))
    metrics.watch(from_results(memory.backlog.oldest_ready_at, clock))
    metrics.watch(from_pauses(breaker.paused))
    metrics.watch(from_process(intake.waiting))


def _notify(
    settings: Settings, policy: NotifyPolicy, memory: Memory, admission: Admission, shared: _Shared
) -> NotifyParts:
    return notify_parts(
        settings.notify,
        policy,
        database=memory.database,
        notifications=memory.notifications,
        admission=admission,
        timing=shared["timing"],
        clock=shared["clock"],
        redactor=shared["redactor"],
        metrics=shared["metrics"],
    )


def _access(settings: Settings) -> Access:
    access = Access(token.get_secret_value() for token in settings.api_tokens)
    access.refuse_exposure(settings.host, settings.public_url)
    return access


def _admission(settings: Settings, access: Access, clock: Clock) -> Admission:
    limits = Limits(settings.limits, clock)
    return Admission(access, limits, Sessions(access, secret_keys(settings), clock))


def _housekeeper(memory: Memory, metrics: Metrics, clock: Clock) -> Housekeeper:
    return Housekeeper({"events forgotten": lambda: memory.events.forget(clock() - KEPT_MS)}, metrics)


def _health(settings: Settings, memory: Memory, breaker: CircuitBreaker, clock: Clock) -> Health:
    results = oldest_result(memory.backlog.oldest_ready_at, limit_s=settings.ready.oldest_result, clock=clock)
    checks = {"ledger": memory.ledger.ping, "archive": memory.store.ping, "results": results}
    return Health(checks, [breaker.warnings, warnings_of(memory.notifications, clock)])


def _timing(settings: Settings) -> Timing:
    worker = settings.worker
    later = Timing().callback_polls[1:]
    return Timing(callback_polls=(worker.first_poll, *later), poll_only=worker.poll_interval)


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
    overview = BulkPoller(memory.backlog, outside.sender, shared["clock"])
    reconciler = Reconciler(
        ledger, outside.gateways, outside.sender, confirm=confirm, overview=overview, **shared
    )
    collector = Archiver(ledger, memory.archive, downloader, reconciler, outside.gateways, **shared)

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
        timeout_s=download.timeout,
    )
