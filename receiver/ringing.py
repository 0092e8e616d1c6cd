"""Who looks when something has happened: this process at once, and the others that share its ledger."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from receiver.api.subscriptions import Subscriptions
from receiver.jobs.worker import Worker
from receiver.telemetry.metrics import Metrics
from storage.errors import StorageError
from storage.ledger.database import Database
from storage.ledger.wakeup import Topic, WakeupChannel

log = structlog.get_logger("darkroom.bell")


def open_wakeup(database: Database, metrics: Metrics) -> WakeupChannel:
    """A bell that says in the log when it falls silent."""

    def silent(error: Exception) -> None:
        metrics.count("darkroom_ledger_errors_total", part="bell")
        why = str(error) if isinstance(error, StorageError) else type(error).__name__
        log.warning("other processes are not heard; the ledger is looked at once a second", why=why)

    return WakeupChannel(database, silent)


def moved(waiters: Subscriptions, bell: WakeupChannel) -> Callable[[str], None]:
    """What is called with a job's id after it has moved."""

    def tell(job_id: str) -> None:
        waiters.moved(job_id)
        bell.notify(Topic.EVENTS)

    return tell


def due(worker: Worker, waiters: Subscriptions, bell: WakeupChannel) -> Callable[[], None]:
    """What is called when there is something to do. `worker` does it, or another one if that has no place."""

    def wake() -> None:
        worker.wake()
        if worker.busy:
            bell.notify(Topic.WORK)
        bell.notify(Topic.EVENTS)

    bell.on(Topic.WORK, worker.wake)
    bell.on(Topic.EVENTS, waiters.moved)
    return wake
