"""Who looks when something has happened: this process at once, and the others that share its ledger."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from receiver.metrics import Metrics
from receiver.waiting import Waiters
from receiver.worker import Worker
from storage.bell import Bell, Ring
from storage.database import Database
from storage.errors import StorageError

log = structlog.get_logger("darkroom.bell")


def hang_bell(database: Database, metrics: Metrics) -> Bell:
    """A bell that says in the log when it falls silent."""

    def silent(error: Exception) -> None:
        metrics.count("darkroom_ledger_errors_total", part="bell")
        why = str(error) if isinstance(error, StorageError) else type(error).__name__
        log.warning("other processes are not heard; the ledger is looked at once a second", why=why)

    return Bell(database, silent)


def moved(waiters: Waiters, bell: Bell) -> Callable[[str], None]:
    """What is called with a job's id after it has moved."""

    def tell(job_id: str) -> None:
        waiters.moved(job_id)
        bell.ring(Ring.EVENTS)

    return tell


def due(worker: Worker, waiters: Waiters, bell: Bell) -> Callable[[], None]:
    """What is called when there is something to do. `worker` does it, or another one if that has no place."""

    def wake() -> None:
        worker.wake()
        if worker.busy:
            bell.ring(Ring.WORK)
        bell.ring(Ring.EVENTS)

    bell.answer(Ring.WORK, worker.wake)
    bell.answer(Ring.EVENTS, waiters.moved)
    return wake
