"""`darkroom ...`, with every SQL statement counted: `python -m tests.benchmarks.counted serve`.

The count stands in the first eight bytes of the file that COUNTED_IN names, for another process to read.
"""

from __future__ import annotations

import mmap
import os
import struct
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import Engine, event

from receiver.cli import main

VARIABLE = "COUNTED_IN"
FORMAT = "<Q"


def begin(path: Path) -> None:
    """Count from now on."""
    path.write_bytes(struct.pack(FORMAT, 0))
    with path.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), struct.calcsize(FORMAT))
    statements, lock = count(1), Lock()

    def counted(*_: Any) -> None:
        with lock:
            struct.pack_into(FORMAT, shared, 0, next(statements))

    event.listen(Engine, "before_cursor_execute", counted)


def statements(path: Path) -> int:
    """How many SQL statements the other process has run."""
    (number,) = struct.unpack(FORMAT, path.read_bytes())
    return int(number)


if __name__ == "__main__":
    begin(Path(os.environ[VARIABLE]))
    main()
