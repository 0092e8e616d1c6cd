"""Take deliveries into the ledger in batches: many callbacks, one commit, then their answers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

import structlog

from receiver.errors import Unready
from receiver.metrics import Metrics
from storage.deliveries import Offer, Receipt
from storage.errors import StorageError
from storage.ledger import Ledger

log = structlog.get_logger("darkroom.intake")

BATCH = 256
WAITING = 8192
"""How many callbacks may wait for a commit; beyond that a sender is asked to come again."""


class Intake:
    """One thread that writes what callers have offered. `offer` may be called from any thread."""

    def __init__(self, ledger: Ledger, arrived: Callable[[], None], metrics: Metrics) -> None:
        """`arrived` is called after each commit that brought something new."""
        self._ledger = ledger
        self._arrived = arrived
        self._metrics = metrics
        self._waiting: queue.Queue[tuple[Offer, Future[Receipt]] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is waiting, and end."""
        self._waiting.put(None)
        self._thread.join()

    def offer(self, offer: Offer) -> Future[Receipt]:
        """Hand in a verified callback. The result is there once it is durable; else it raises Unready."""
        future: Future[Receipt] = Future()
        try:
            self._waiting.put_nowait((offer, future))
        except queue.Full:
            self._metrics.count("darkroom_callbacks_unwritten_total", reason="full")
            future.set_exception(Unready("Too many callbacks are waiting to be written."))
        return future

    def waiting(self) -> int:
        """How many callbacks wait for a commit."""
        return self._waiting.qsize()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, last = self._gather(first)
            self._write(batch)
            if last:
                return

    def _gather(
        self, first: tuple[Offer, Future[Receipt]]
    ) -> tuple[list[tuple[Offer, Future[Receipt]]], bool]:
        batch = [first]
        while len(batch) < BATCH:
            try:
                following = self._waiting.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return batch, True
            batch.append(following)
        return batch, False

    def _write(self, batch: list[tuple[Offer, Future[Receipt]]]) -> None:
        # A sender that went away cancels its future; its callback is not written either.
        batch = [(offer, future) for offer, future in batch if future.set_running_or_notify_cancel()]
        try:
            receipts = self._ledger.record([offer for offer, _ in batch])
        except StorageError as error:
            log.error("callbacks not written", callbacks=len(batch), why=str(error))
            self._refuse(batch, error)
            return
        except Exception as error:
            log.exception("callbacks not written", callbacks=len(batch))
            self._refuse(batch, error)
            return
        self._metrics.observe("darkroom_intake_batch_callbacks", len(batch))
        for (_, future), receipt in zip(batch, receipts, strict=True):
            future.set_result(receipt)
        if Receipt.ACCEPTED in receipts:
            self._arrived()

    def _refuse(self, batch: list[tuple[Offer, Future[Receipt]]], error: Exception) -> None:
        self._metrics.count("darkroom_callbacks_unwritten_total", len(batch), reason="ledger")
        self._metrics.count("darkroom_ledger_errors_total", part="intake")
        for _, future in batch:
            unready = Unready("The callback could not be written; send it again.")
            unready.__cause__ = error
            future.set_exception(unready)
