"""Work on what comes next while what came before is still being used, in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from time import monotonic
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item, threading.Event], Result],
    items: Iterable[Item],
    *,
    threads: int,
    stop_s: float = 0,
) -> Iterator[Result]:
    """The results of `work` on each item, in the items' order; a few more are worked on meanwhile.

    Raises what `work` raised. When this ends early, the event that `work` gets is set, and work in progress
    has `stop_s` seconds to end: a thread that hangs does not keep the program from ending, as one of a
    ThreadPoolExecutor would.
    """
    stop = threading.Event()
    todo: SimpleQueue[tuple[Item, Future[Result]] | None] = SimpleQueue()
    waiting: deque[Future[Result]] = deque()

    def run() -> None:
        while (task := todo.get()) is not None and not stop.is_set():
            item, future = task
            try:
                future.set_result(work(item, stop))
            except BaseException as error:  # noqa: BLE001 - it goes to whoever waits for the result
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
