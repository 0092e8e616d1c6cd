"""Measure how long the rows are held that count an image: `python -m tests.benchmarks.rows_held`.

Whoever notes an image counts it in rows that all others count in, and holds them until its transaction is
over: one row bears no more than one image in that time. It is measured with the ledger's own code on a
PostgreSQL that writes as durably as usual.
"""

from contextlib import closing
from dataclasses import replace
from statistics import median
from time import perf_counter
from typing import Any

import psycopg
from sqlalchemy import Engine, event

from receiver.schedule import system_clock
from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from tests.benchmarks import ledgers
from tests.benchmarks.figures import footer, machine, percentile, told
from tests.benchmarks.grounds import DURABLE
from tests.support import postgres
from tests.support.ledgers import add_output, output

HOT = "INSERT INTO tallies"
"""How the statement begins that takes the rows which everybody counts in."""

LINK = "http://127.0.0.1:1/0.png"


def main() -> None:
    about = machine()
    with postgres.serving(**DURABLE) as server:
        holds = holds_ms(server, 2_000)
    print(f"Rows that count an image are held for {median(holds):.2f} ms; p95 {percentile(holds, 95):.2f}.\n")
    print(footer(told([], about, [], program="tests.benchmarks.rows_held")))


def holds_ms(server: postgres.Postgres, images: int) -> list[float]:
    """How long each of so many transactions holds the rows that everybody counts in, in milliseconds."""
    began: list[float] = []
    held: list[float] = []

    class Looking(psycopg.Cursor[Any]):
        def executemany(self, query: Any, *given: Any, **more: Any) -> None:
            if query.startswith(HOT):
                began.append(perf_counter())
            super().executemany(query, *given, **more)

    def look(connection: Any, _record: object) -> None:
        connection.cursor_factory = Looking

    event.listen(Engine, "connect", look)
    try:
        with closing(Database.open(server.url(server.create()))) as database:
            ledger = Ledger(database, system_clock)
            for job in ledgers.begin(database, [LINK] * images, ready=True):
                add_output(ledger, replace(output(), job_id=job.id, key=job.id))
                held.append(1000 * (perf_counter() - began[-1]))
    finally:
        event.remove(Engine, "connect", look)
    if len(began) != images:
        raise RuntimeError(f"{len(began)} statements in {images} transactions begin with {HOT!r}")
    return held


if __name__ == "__main__":
    main()
