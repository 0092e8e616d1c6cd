"""Run blocking bucket reads in a bounded pool of threads, apart from those of all other requests."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from receiver.errors import Unready

Result = TypeVar("Result")

AT_ONCE = 16
"""How many threads a bucket that hangs can block."""
MOST_WAITING = 256
"""How many calls may wait for a thread; more are refused. A page of the gallery has 100."""


class BucketThreads:
    """A bounded pool of threads for reads of the bucket; for one event loop."""

    def __init__(self, *, at_once: int = AT_ONCE, most_waiting: int = MOST_WAITING) -> None:
        """Run `at_once` calls, let `most_waiting` more wait, and refuse those beyond."""
        self._threads = CapacityLimiter(at_once)
        self._most = at_once + most_waiting
        self._inside = 0

    async def run(self, call: Callable[[], Result]) -> Result:
        """Return what a call returns. Raises Unready if too many wait already, and what the call raises."""
        if self._inside >= self._most:
            raise Unready("The bucket is slow, and many requests wait for it; try again in a moment.")
        self._inside += 1
        try:
            return await to_thread.run_sync(call, limiter=self._threads)
        finally:
            self._inside -= 1

    async def each(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Yield chunks, each read in a thread of its own turn: a slow client holds no thread meanwhile.

        Never refuses, because the response has begun. Raises what reading raises.
        """

        def following() -> bytes | None:
            return next(chunks, None)

        while (chunk := await to_thread.run_sync(following, limiter=self._threads)) is not None:
            yield chunk
