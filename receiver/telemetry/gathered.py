"""Gather events of the log, and write them together: one thread, one write for all that came meanwhile."""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

GATHER_S = 0.05
"""How long an event waits for others: a write, and a thread that wakes, cost as much for one as for many."""
MOST = 10_000
"""How many may wait. Beyond that whoever brings one more writes them all, and waits as long as that takes."""

Event = MutableMapping[str, Any]


class Gathered:
    """Events in the order in which they came. Thread-safe; its thread starts with the first event.

    What waits is written when the interpreter ends, and by `flush` before anything else is written where
    these go.
    """

    def __init__(self, write: Callable[[Sequence[Event]], None]) -> None:
        """`write` writes several events; never called by two threads at once."""
        self._write = write
        self._waiting: deque[Event] = deque()
        self._come = threading.Event()
        self._turn = threading.RLock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, event: Event) -> None:
        """Have an event written soon."""
        self._waiting.append(event)
        if not self._come.is_set():
            self._start()
            self._come.set()
        if len(self._waiting) > MOST or self._ended.is_set():
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        with self._turn:
            events = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if events:
                self._write(events)

    def close(self) -> None:
        """Write what waits, and end the thread; what still comes is written at once."""
        self._ended.set()
        self._come.set()
        self.flush()
        atexit.unregister(self.close)

    def _start(self) -> None:
        if self._thread is None:
            with self._turn:
                if self._thread is None:
                    atexit.register(self.close)
                    self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._come.wait()
            self._ended.wait(GATHER_S)
            # Before the events are taken: one that comes from here on is seen by the next round.
            self._come.clear()
            self.flush()
