"""What the readers of image headers share: small reads at a place, within bounds."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from storage.errors import Corrupt

MAX_PARTS = 1 << 18
"""More chunks or segments than any real image has: reading on would only burn time."""


class CutShort(Corrupt):
    """The file ends in the middle of its header."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much an image's header says is in it. Width and height are those of the image as it is shown."""

    width: int
    height: int
    frames: int = 1
    """Pictures that are shown in turn, or that come along with the first."""
    largest: int = 0
    """Pixels of the largest picture inside, where a header gives it a size of its own."""


def read_at(file: BinaryIO, at: int, size: int) -> bytes:
    """Read exactly `size` bytes; raises struct.error, as unpacking would, if the file ends before."""
    file.seek(at)
    data = file.read(size)
    if len(data) < size:
        raise struct.error
    return data


def length_of(file: BinaryIO) -> int:
    """The file's size in bytes."""
    return file.seek(0, os.SEEK_END)
