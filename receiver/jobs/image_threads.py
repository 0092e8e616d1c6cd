"""Fetch the images of one job at the same time, in further threads as far as some are free."""

import contextvars
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class ImageThreads:
    """So many threads beside those that call. Thread-safe.

    They live as long as what they do, and are daemons: what hangs in a download must not outlive a stop.
    """

    def __init__(self, number: int) -> None:
        self._free = threading.Semaphore(number)

    def each(self, call: Callable[[T], R], values: Sequence[T]) -> list[R]:
        """Call a function for each value, and return the results in their order; raises the first error.

        It returns once all are done.
        """
        results: list[Future[R]] = [Future() for _ in values]
        for result, value in zip(results[:-1], values[:-1], strict=True):
            self._begin(call, value, result)
        if values:
            _do(call, values[-1], results[-1])
        for result in results:
            result.exception()
        return [result.result() for result in results]

    def _begin(self, call: Callable[[T], R], value: T, result: Future[R]) -> None:
        if not self._free.acquire(blocking=False):
            _do(call, value, result)
            return

        def run_beside() -> None:
            try:
                _do(call, value, result)
            finally:
                self._free.release()

        # The log names the job in every thread.
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(run_beside,), name="image", daemon=True).start()


def _do(call: Callable[[T], R], value: T, result: Future[R]) -> None:
    try:
        result.set_result(call(value))
    except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
        result.set_exception(error)
