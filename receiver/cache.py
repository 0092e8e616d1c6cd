"""Cache the result of a call for a moment: a TTL cache of one value."""

from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Generic, TypeVar

Value = TypeVar("Value")


class TtlCache(Generic[Value]):
    """Calls `find` at most once in `ttl_s` seconds, and never twice at the same time. Thread-safe."""

    def __init__(self, find: Callable[[], Value], ttl_s: float) -> None:
        self._find = find
        self._ttl_s = ttl_s
        self._lock = Lock()
        self._found_at = float("-inf")
        self._value: Value | None = None

    def forget(self) -> None:
        """Expire the value, however recent it is."""
        self._found_at = float("-inf")

    def __call__(self) -> Value:
        """Return the value, or the expired one while another thread finds a new one; raise as `find` does."""
        # Waiting for the new one would fill the threads.
        known = self._value
        if monotonic() - self._found_at >= self._ttl_s and self._lock.acquire(blocking=known is None):
            try:
                if self._value is None or monotonic() - self._found_at >= self._ttl_s:
                    self._value = self._find()
                    self._found_at = monotonic()
            finally:
                self._lock.release()
        assert self._value is not None
        return self._value
