"""`darkroom ...`, with its SQL statements counted: `python -m tests.benchmarks.counted serve`.

The counts stand in the first bytes of the file that COUNTED_IN names, for another process to read.
"""

import mmap
import os
import struct
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from sqlalchemy import Engine, event

from receiver.cli.main import main

VARIABLE = "COUNTED_IN"
FORMAT = "<QQQQ"
CLAIM = "SKIP LOCKED"
"""What stands in the statement that leases jobs to a worker, on PostgreSQL; SQLite has no need of it."""


class Counts(NamedTuple):
    statements: int
    claims: int
    empty: int
    """Claims that brought nothing."""
    claimed: int
    """Jobs that claims brought, a job once for each time."""


def begin(path: Path) -> None:
    """Count from now on."""
    path.write_bytes(struct.pack(FORMAT, 0, 0, 0, 0))
    with path.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), struct.calcsize(FORMAT))
    lock = Lock()

    def add(*more: int) -> None:
        with lock:
            known = struct.unpack_from(FORMAT, shared)
            struct.pack_into(
                FORMAT, shared, 0, *(one + other for one, other in zip(known, more, strict=True))
            )

    def before(*_: Any) -> None:
        add(1, 0, 0, 0)

    def after(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE jobs") and CLAIM in statement:
            add(0, 1, cursor.rowcount == 0, cursor.rowcount)

    event.listen(Engine, "before_cursor_execute", before)
    event.listen(Engine, "after_cursor_execute", after)


def counts(path: Path) -> Counts:
    return Counts(*struct.unpack(FORMAT, path.read_bytes()))


if __name__ == "__main__":
    begin(Path(os.environ[VARIABLE]))
    main()
