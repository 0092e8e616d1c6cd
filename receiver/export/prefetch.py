"""Prefetch results in threads while earlier ones are used, in order."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from time import monotonic
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetched(
    work: Callable[[Item, threading.Event], Result], items: Iterable[Item], *, threads: int, stop_s: float = 0
) -> Iterator[Result]:
    """Yield the results of `work` on each item, in order; up to twice as many as threads are prefetched.

    Raises what `work` raised. If this ends early, the event that `work` gets is set, and work in progress has
    `stop_s` seconds to end. Daemon threads, because those of a ThreadPoolExecutor would keep the program from
    exiting while a download hangs.
    """
    stop = threading.Event()
    todo: SimpleQueue[tuple[Item, Future[Result]] | None] = SimpleQueue()
    waiting: deque[Future[Result]] = deque()

    def run() -> None:
        while (task := todo.get()) is not None and not stop.is_set():
            item, future = task
            try:
                future.set_result(work(item, stop))
            except BaseException as error:  # noqa: BLE001 - raised again by `result`
                future.set_exception(error)

    running = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        for item in items:
            future: Future[Result] = Future()
            waiting.append(future)
            todo.put((item, future))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stop.set()
        for _ in running:
            todo.put(None)
        deadline = monotonic() + stop_s
        for thread in running:
            thread.join(max(0.0, deadline - monotonic()))
