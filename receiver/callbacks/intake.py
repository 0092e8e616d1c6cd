"""Write deliveries to the ledger in batches: a group commit, and then the responses."""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import structlog

from receiver.errors import Unready
from receiver.telemetry.metrics import Metrics
from storage.errors import StorageError
from storage.ledger.deliveries import DeliveryResult, NewDelivery
from storage.ledger.ledger import Ledger

log = structlog.get_logger("darkroom.intake")

BATCH = 256
REST_S = 0.003
"""Pause after a commit of several: a commit costs the same for one as for many, and more come."""

WAITING = 8192
"""How many callbacks may wait for a commit; more are refused, to be sent again."""


class _Waiting(NamedTuple):
    """A delivery in the queue, and the future of its result, on the event loop of its request."""

    delivery: NewDelivery
    result: asyncio.Future[DeliveryResult]


class Intake:
    """A thread that writes queued deliveries."""

    def __init__(self, ledger: Ledger, arrived: Callable[[], None], metrics: Metrics) -> None:
        """`arrived` is called after each commit with a new delivery."""
        self._ledger = ledger
        self._arrived = arrived
        self._metrics = metrics
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is queued, and end the thread."""
        self._stopping.set()
        self._waiting.put(None)
        self._thread.join()

    async def take(self, delivery: NewDelivery) -> DeliveryResult:
        """Write a verified delivery and return when it is durable; raises Unready if it is not.

        If cancelled before, it is not written.
        """
        return await self.put(delivery)

    def put(self, delivery: NewDelivery) -> asyncio.Future[DeliveryResult]:
        """Do the same without waiting, on the event loop: return what `take` waits for."""
        if self.waiting() >= WAITING:
            self._metrics.count("darkroom_callbacks_unwritten_total", reason="full")
            raise Unready("Too many callbacks are waiting to be written.")
        result: asyncio.Future[DeliveryResult] = asyncio.get_running_loop().create_future()
        self._waiting.put(_Waiting(delivery, result))
        return result

    def waiting(self) -> int:
        """Return how many callbacks wait for a commit."""
        return self._waiting.qsize()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, last = self._gather(first)
            self._write(batch)
            if last:
                return
            if len(batch) > 1:
                self._stopping.wait(REST_S)

    def _gather(self, first: _Waiting) -> tuple[list[_Waiting], bool]:
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

    def _write(self, batch: list[_Waiting]) -> None:
        # The request of a client that disconnected is cancelled; its callback is not written either.
        batch = [one for one in batch if not one.result.cancelled()]
        try:
            results = self._ledger.add_deliveries([one.delivery for one in batch])
        except StorageError as error:
            log.error("callbacks not written", callbacks=len(batch), why=str(error))
            self._refuse(batch, error)
            return
        except Exception as error:
            log.exception("callbacks not written", callbacks=len(batch))
            self._refuse(batch, error)
            return
        self._metrics.observe("darkroom_intake_batch_callbacks", len(batch))
        _resolve(batch, results)
        if DeliveryResult.ACCEPTED in results:
            self._arrived()

    def _refuse(self, batch: list[_Waiting], error: Exception) -> None:
        self._metrics.count("darkroom_callbacks_unwritten_total", len(batch), reason="ledger")
        self._metrics.count("darkroom_ledger_errors_total", part="intake")
        _resolve(batch, [error] * len(batch))


def _resolve(batch: Sequence[_Waiting], outcomes: Sequence[DeliveryResult | Exception]) -> None:
    """Set the results of a batch in one turn of the event loop, for each turn costs a system call."""
    if batch:
        with suppress(RuntimeError):  # the loop is closed
            batch[0].result.get_loop().call_soon_threadsafe(_settle, batch, outcomes)


def _settle(batch: Sequence[_Waiting], outcomes: Sequence[DeliveryResult | Exception]) -> None:
    for one, outcome in zip(batch, outcomes, strict=True):
        if one.result.done():
            continue
        if isinstance(outcome, DeliveryResult):
            one.result.set_result(outcome)
            continue
        unready = Unready("The callback could not be written; send it again.")
        unready.__cause__ = outcome
        one.result.set_exception(unready)
