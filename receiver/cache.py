"""An answer that costs something, asked for by anybody: found once, and given again for a moment."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class TtlCache(Generic[Answer]):
    """Calls `find` at most once in `seconds`, however many ask, and never twice at the same time."""

    def __init__(self, find: Callable[[], Answer], seconds: float) -> None:
        self._find = find
        self._seconds = seconds
        self._lock = Lock()
        self._found_at = float("-inf")
        self._answer: Answer | None = None

    def forget(self) -> None:
        """Ask again next time, however recent the last answer is."""
        self._found_at = float("-inf")

    def __call__(self) -> Answer:
        """The answer, a moment old, or older while a new one is being found; raises as `find` does."""
        # Whoever comes while it is being found gets the last one: waiting would fill the threads.
        known = self._answer
        if monotonic() - self._found_at >= self._seconds and self._lock.acquire(blocking=known is None):
            try:
                if self._answer is None or monotonic() - self._found_at >= self._seconds:
                    self._answer = self._find()
                    self._found_at = monotonic()
            finally:
                self._lock.release()
        assert self._answer is not None
        return self._answer
