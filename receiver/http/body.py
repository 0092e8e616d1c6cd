"""Read the body of a request: whole or not at all, within a size and a time, few large ones at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.requests import Request

from receiver.errors import BodyTooLarge, TooManyRequests, TooSlow

LARGE = 64 * 1024
"""Callbacks have a few kilobytes; a body with more bytes than this waits for its turn."""
LARGE_AT_ONCE = 8
"""Together with the size limit this bounds what the bodies of all callbacks can take of the memory."""


async def read_body(
    request: Request, limit: int, *, within_s: float, large: Callable[[], Awaitable[None]] | None = None
) -> bytes:
    """Read a body of at most `limit` bytes; it is never cut.

    Raises BodyTooLarge as soon as it is announced or found to be longer, and TooSlow if it is not there
    after `within_s` seconds. `large` is awaited before more than `LARGE` bytes are read; meanwhile the
    sender is held back, and the time runs.
    """
    refuse_announced(request, limit)
    body = bytearray()
    try:
        async with asyncio.timeout(within_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
                if large is not None and len(body) > LARGE:
                    await large()
                    large = None
    except TimeoutError:
        raise TooSlow(f"The body must be here within {within_s:g} seconds.") from None
    return bytes(body)


def refuse_announced(request: Request, limit: int) -> None:
    """Raise BodyTooLarge if the request itself says that its body is over the limit."""
    announced = request.headers.get("content-length", "")
    # Text of 20 digits or more is not worth a conversion.
    if announced.isascii() and announced.isdigit() and (len(announced) > 19 or int(announced) > limit):
        raise _too_large(limit)


class LargeBodies:
    """Lets few large bodies be in hand at once, and one per owner, so that no owner can keep others out."""

    def __init__(self, at_once: int = LARGE_AT_ONCE) -> None:
        self._room = asyncio.Semaphore(at_once)
        self._owners: set[str] = set()

    @asynccontextmanager
    async def one_of(self, owner: str) -> AsyncIterator[None]:
        """Wait for room and keep it; raise TooManyRequests if the owner has a large body in hand."""
        if owner in self._owners:
            raise TooManyRequests("One large body at a time, please; send this one again.")
        self._owners.add(owner)
        try:
            async with self._room:
                yield
        finally:
            self._owners.discard(owner)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body may have {limit} bytes at most.")
