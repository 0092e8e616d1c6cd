"""Let HTTP requests wait for a job to move, without asking the ledger over and over."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Waiters:
    """Connects the worker's threads, which move jobs, with requests that wait on the event loop."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._events: defaultdict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = defaultdict(
            set
        )
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the service is stopping, so that nobody should wait any longer."""
        return self._closed

    @contextmanager
    def waiting(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the job moves in this process, or the service stops."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._events[job_id].add(entry)
            if self._closed:
                entry[1].set()
        try:
            yield entry[1]
        finally:
            with self._lock:
                self._events[job_id].discard(entry)
                if not self._events[job_id]:
                    del self._events[job_id]

    def moved(self, job_id: str) -> None:
        """Tell those who wait for this job; may be called from any thread."""
        with self._lock:
            self._tell(self._events.get(job_id, ()))

    def close(self) -> None:
        """Send everybody home, as the service stops."""
        with self._lock:
            self._closed = True
            for entries in self._events.values():
                self._tell(entries)

    def _tell(self, entries: object) -> None:
        for loop, event in entries:  # type: ignore[attr-defined]
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)
