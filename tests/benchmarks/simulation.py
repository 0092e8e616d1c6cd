"""What no single machine has room for, simulated: `python -m tests.benchmarks.simulation [--json FILE]`.

**One row for all.** Whoever notes an image counts it in rows that everybody else counts in, and holds them
until its transaction is over. How long that is, is measured with the ledger's own code on a PostgreSQL that
writes as durably as usual. The queue before such rows is simulated, and the simulation is held against
PostgreSQL's own locks at sizes that fit here: its transactions sleep, and need no processor.

**A backlog.** Jobs come in evenly while the store is away (each is tried again and again, as
`receiver.schedule` has it), or while all workers are (nothing is tried). What is simulated is a hundredth of
what is told: only the ratio of what comes in to what can be done matters.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from typing import Any, Literal, get_args

import psycopg
from sqlalchemy import Engine, event

from receiver.schedule import Timing, system_clock
from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from tests.benchmarks import ledgers
from tests.benchmarks.figures import aligned, footer, machine, percentile, told
from tests.benchmarks.grounds import DURABLE
from tests.support import postgres
from tests.support.ledgers import output

HOT = "INSERT INTO tallies"
"""How the statement begins that takes the rows which everybody counts in."""

LINK = "http://127.0.0.1:1/0.png"
SCALE = 100
"""Of so many jobs one is simulated."""
RATE = 1_000
"""Jobs a second, at full size."""
PLACES = 20
"""How many jobs are in hand at once, at most, in the simulation."""
CALM_S = 600.0
"""How long all is well before something is away."""
HOUR = 3600.0

THINK_MS = 40.0
HOLD_MS = 5.0
"""What the transactions sleep that the simulation is held against, before they take a row and while."""
IMAGE_MS = 100.0
"""How long a writer is busy with each image beside the row: it downloads the image and stores it."""

Away = Literal["store", "workers"]
AWAY: tuple[Away, ...] = get_args(Away)


@dataclass(frozen=True, slots=True)
class Outage:
    """What is away, for how long, and how much can be done otherwise."""

    away: Away
    seconds: float
    capacity: float
    """Jobs that can be done, over jobs that come in."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What became of the jobs. Times are in seconds."""

    backlog: int
    """Jobs that waited when the outage was over, at full size."""
    recovered: float
    """From the end of the outage until no more jobs wait than are in hand."""
    oldest: float
    """How old a job's image was at most when it was archived."""
    tries: float
    """In vain, for each job that waited."""
    too_old: float
    """The share of jobs whose image was older than gateways keep it."""


def images_a_second(
    writers: int, *, rows: int, think_ms: float, hold_ms: float, seconds: float = 60, seed: int = 7
) -> float:
    """How many transactions end in a second where each takes one of `rows`, whichever it is, and holds it."""
    chance = random.Random(seed)
    arriving = [(chance.expovariate(1 / think_ms), writer) for writer in range(writers)]
    heapq.heapify(arriving)
    free_at = [0.0] * rows
    done = 0
    while arriving[0][0] < seconds * 1000:
        at, writer = heapq.heappop(arriving)
        row = chance.randrange(rows)
        # Those who wait for a row get it in the order in which they came.
        free_at[row] = max(at, free_at[row]) + hold_ms
        done += 1
        heapq.heappush(arriving, (free_at[row] + chance.expovariate(1 / think_ms), writer))
    return done / seconds


def recovery(outage: Outage, *, rate: float = RATE / SCALE, seed: int = 7) -> Recovery:
    """Go through an outage and what comes after it, job by job, in the order in which they are due."""
    random.seed(seed)
    timing, chance = Timing(), random.Random(seed)
    places, work_s = [0.0] * PLACES, PLACES / (rate * outage.capacity)
    begins, ends = CALM_S, CALM_S + outage.seconds
    waiting: list[tuple[float, float]] = []  # when each is due, and when it came in
    comes = chance.expovariate(rate)
    backlog = tries = done = too_old = 0
    oldest = 0.0
    while True:
        start = max(places[0], min(comes, waiting[0][0] if waiting else comes))
        away = begins <= start < ends
        if away and outage.away == "workers":
            start, away = ends, False
        while comes <= start:
            heapq.heappush(waiting, (comes, comes))
            comes += chance.expovariate(rate)
        if start >= ends:
            backlog = backlog or len(waiting)
            if len(waiting) <= len(places):
                break
        _, came_in = heapq.heappop(waiting)
        heapq.heapreplace(places, start + work_s)
        if away:
            tries += 1
            heapq.heappush(waiting, (start + work_s + timing.outage_wait(start - came_in), came_in))
            continue
        done += 1
        age = start + work_s - came_in
        oldest, too_old = max(oldest, age), too_old + (age > timing.retention)
    return Recovery(backlog * SCALE, start - ends, oldest, tries / max(1, backlog), too_old / max(1, done))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is needed, simulate, print tables, and write the figures to a file if one is named."""
    command = sys.argv[1:] if arguments is None else list(arguments)
    asked = argparse.ArgumentParser(prog="python -m tests.benchmarks.simulation", description=__doc__)
    asked.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    asked.add_argument("--quick", action="store_true", help="sizes that only show that everything works")
    options = asked.parse_args(command)
    about = machine()
    with postgres.serving(**DURABLE) as server:
        holds = holds_ms(server, 40 if options.quick else 2_000)
        hold_ms = median(holds)
        checked = list(_check(server, seconds=0.5 if options.quick else 5))
    grown = list(_grow(hold_ms, seconds=2 if options.quick else 60))
    outages = _OUTAGES[:2] if options.quick else _OUTAGES
    recovered = [(outage, recovery(outage)) for outage in outages]
    print(f"The rows that count an image are held for {hold_ms:.2f} ms (median of {len(holds)}; p95 is "
          f"{percentile(holds, 95):.2f} ms).\n")  # fmt: skip
    for rows in (_CHECKED, *checked), (_GROWN, *grown), (_RECOVERED, *(_told(*each) for each in recovered)):
        print(f"{aligned(rows)}\n")
    print(footer(told([], about, command, program="tests.benchmarks.simulation")))
    if options.json:
        figures = {
            "hold_ms": {"median": hold_ms, "p95": percentile(holds, 95)},
            "checked": [dict(zip(_CHECKED, row, strict=True)) for row in checked],
            "grown": [dict(zip(_GROWN, row, strict=True)) for row in grown],
            "recovered": [asdict(outage) | asdict(found) for outage, found in recovered],
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


_OUTAGES = [
    Outage(away, seconds, capacity)
    for seconds in (600, HOUR, 6 * HOUR)
    for away in AWAY
    for capacity in (1.25, 2)
]
_CHECKED = ("writers", "rows", "PostgreSQL, a second", "simulated, a second")
_GROWN = ("writers", "one row, images a second", "4 rows", "16 rows")
_RECOVERED = (
    "away", "for", "capacity", "waiting then", "recovered after", "by arithmetic", "oldest image",
    "tries in vain", "too old",
)  # fmt: skip


def holds_ms(server: postgres.Postgres, images: int) -> list[float]:
    """How long each of so many transactions holds the rows that everybody counts in, in milliseconds."""
    began: list[float] = []
    held: list[float] = []

    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(HOT):
            began.append(perf_counter())

    with closing(Database.open(server.url(server.create()))) as database:
        ledger = Ledger(database, system_clock)
        begun = ledgers.begin(database, [LINK] * images, ready=True)
        event.listen(Engine, "before_cursor_execute", look)
        try:
            for job in begun:
                ledger.add_output(replace(output(), job_id=job.id, key=job.id))
                held.append(1000 * (perf_counter() - began[-1]))
        finally:
            event.remove(Engine, "before_cursor_execute", look)
    if len(began) != images:
        raise RuntimeError(f"{len(began)} statements in {images} transactions begin with {HOT!r}")
    return held


def _check(server: postgres.Postgres, seconds: float) -> Iterator[tuple[str, ...]]:
    """PostgreSQL's own locks, beside the simulation of them."""
    for writers, rows in ((1, 1), (4, 1), (16, 1), (48, 1), (48, 4), (48, 16)):
        real = _sleeping(server, writers, rows, seconds)
        simulated = images_a_second(writers, rows=rows, think_ms=THINK_MS, hold_ms=real.hold_ms)
        yield str(writers), str(rows), f"{real.rate:.0f}", f"{simulated:.0f}"


@dataclass(frozen=True, slots=True)
class _Sleeping:
    rate: float
    hold_ms: float
    """How long a row was held where nobody else wanted it: the commit takes its time too."""


def _sleeping(server: postgres.Postgres, writers: int, rows: int, seconds: float) -> _Sleeping:
    """Transactions that take a row, sleep and commit, from so many connections at once."""
    url = server.url(server.create())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE hot (place INT PRIMARY KEY, counted BIGINT NOT NULL)")
        connection.execute("INSERT INTO hot SELECT place, 0 FROM generate_series(0, %s) place", [rows - 1])
        alone = [_hold(connection, 0) for _ in range(20)]
        connection.execute("UPDATE hot SET counted = 0")
    barrier = threading.Barrier(writers)

    def write(number: int) -> None:
        chance = random.Random(number)
        with psycopg.connect(url, autocommit=True) as connection:
            barrier.wait(30)
            until = monotonic() + seconds
            while monotonic() < until:
                connection.execute("SELECT pg_sleep(%s)", [chance.expovariate(1000 / THINK_MS)])
                _hold(connection, chance.randrange(rows))

    began = monotonic()
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    took = monotonic() - began
    with psycopg.connect(url) as connection:
        counted = connection.execute("SELECT sum(counted) FROM hot").fetchone()
    return _Sleeping(float((counted or [0])[0]) / took, median(alone))


def _hold(connection: psycopg.Connection[Any], place: int) -> float:
    began = perf_counter()
    with connection.transaction():
        connection.execute("UPDATE hot SET counted = counted + 1 WHERE place = %s", [place])
        connection.execute("SELECT pg_sleep(%s)", [HOLD_MS / 1000])
    return 1000 * (perf_counter() - began)


def _grow(hold_ms: float, seconds: float) -> Iterator[tuple[str, ...]]:
    """What more writers bring at the measured time, with one row for all and with several."""
    for writers in (4, 16, 64, 256):
        found = (
            images_a_second(writers, rows=rows, think_ms=IMAGE_MS, hold_ms=hold_ms, seconds=seconds)
            for rows in (1, 4, 16)
        )
        yield str(writers), *(f"{rate:,.0f}" for rate in found)


def _told(outage: Outage, found: Recovery) -> tuple[str, ...]:
    # While the backlog is worked off, more comes in.
    arithmetic = outage.seconds / (outage.capacity - 1)
    return (
        outage.away,
        _time(outage.seconds),
        f"{outage.capacity:g} times",
        f"{found.backlog:,}",
        _time(found.recovered),
        _time(arithmetic),
        _time(found.oldest),
        f"{found.tries:.1f} a job",
        f"{found.too_old:.1%}",
    )


def _time(seconds: float) -> str:
    return f"{seconds / HOUR:.1f} h" if seconds >= HOUR else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    main()
