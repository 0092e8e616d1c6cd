"""Small chores that nobody waits for: let go of what is not kept for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import structlog

from receiver.telemetry.metrics import Metrics
from storage.errors import StorageError

log = structlog.get_logger("darkroom.housekeeping")

EVERY_S = 600.0
BETWEEN_S = 0.05
"""A rest between two pieces of one chore, in which others may write."""

Chore = Callable[[], int]
"""Does a piece of what is to be done, in one short transaction; answers 0 once there is nothing left."""


class Housekeeper:
    """A thread that does each chore at the start and then every ten minutes. Several processes may."""

    def __init__(self, chores: Mapping[str, Chore], metrics: Metrics, *, every_s: float = EVERY_S) -> None:
        """`chores` by what the log is to call them, such as "events forgotten"."""
        self._chores = chores
        self._metrics = metrics
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Begin nothing more, and wait for the piece in hand, this long at most."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            for name, chore in self._chores.items():
                self._do(name, chore)
            self._stopping.wait(self._every_s)

    def _do(self, name: str, chore: Chore) -> None:
        done = 0
        try:
            while not self._stopping.is_set() and (piece := chore()):
                done += piece
                self._stopping.wait(BETWEEN_S)
        except Exception as error:
            self._metrics.count("darkroom_ledger_errors_total", part="housekeeper")
            # A traceback only for what nobody expected.
            expected = isinstance(error, StorageError)
            log.error("put off", chore=name, why=str(error), exc_info=None if expected else error)
        if done:
            log.info(name, number=done)
