"""A clock of the service that the test can set: an offset in a file, which both have in memory."""

import mmap
from pathlib import Path

from receiver.schedule import system_clock
from storage.models import Clock

OFFSET_BYTES = 8
"""Milliseconds, signed, little end first."""


class ServiceClock:
    """The offset of the service's clock; may be changed while it runs, and outlives it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set(0)

    def set(self, seconds: float) -> None:
        """Make the clock wrong by so many seconds from now on."""
        # In place, because the service has this very file in its memory.
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.write(int(seconds * 1000).to_bytes(OFFSET_BYTES, "little", signed=True))


def adjustable(path: Path) -> Clock:
    """A clock that is wrong by what the file says now."""
    with path.open("rb") as file:
        offset = mmap.mmap(file.fileno(), OFFSET_BYTES, prot=mmap.PROT_READ)
    return lambda: system_clock() + int.from_bytes(offset[:OFFSET_BYTES], "little", signed=True)
