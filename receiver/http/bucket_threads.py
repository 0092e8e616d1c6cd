"""The threads in which the HTTP edge waits for the bucket, apart from those that everything else needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from receiver.errors import Unready

Answer = TypeVar("Answer")

AT_ONCE = 16
"""How many of them there are: what a hanging bucket takes hold of, and no more."""
MOST_WAITING = 256
"""How many may wait for one of them; whoever comes then is told to come back. A page of a gallery has 100."""


class BucketTurns:
    """Runs what reads the bucket, so much of it at a time; for one event loop."""

    def __init__(self, *, at_once: int = AT_ONCE, most_waiting: int = MOST_WAITING) -> None:
        """Beyond `at_once` calls the next ones wait, and beyond `most_waiting` of those they are refused."""
        self._threads = CapacityLimiter(at_once)
        self._most = at_once + most_waiting
        self._inside = 0

    async def run(self, call: Callable[[], Answer]) -> Answer:
        """Call it in its turn. Raises Unready where too many wait already, and what it raises."""
        if self._inside >= self._most:
            raise Unready("The bucket is slow, and many wait for it; ask again in a moment.")
        self._inside += 1
        try:
            return await to_thread.run_sync(call, limiter=self._threads)
        finally:
            self._inside -= 1

    async def each(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Pass on what is read, a turn for each chunk: nobody who reads slowly keeps a thread meanwhile.

        What has begun is never refused. Raises what reading raises.
        """

        def following() -> bytes | None:
            return next(chunks, None)

        while (chunk := await to_thread.run_sync(following, limiter=self._threads)) is not None:
            yield chunk
