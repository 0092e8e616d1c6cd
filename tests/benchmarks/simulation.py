"""Simulate a backlog, and measure how long rows are held: `python -m tests.benchmarks.simulation`.

Whoever notes an image counts it in rows that all others count in, and holds them until its transaction is
over: one row bears no more than one image in that time. It is measured with the ledger's own code on a
PostgreSQL that writes as durably as usual.

Jobs come in evenly while the store is away (each is tried again and again, as `receiver.schedule` has it), or
while all workers are (nothing is tried). What is simulated is a hundredth of the jobs: only the ratio of what
comes in to what can be done matters.
"""

import heapq
import random
from contextlib import closing
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import Any, Literal, get_args

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


def main() -> None:
    about = machine()
    with postgres.serving(**DURABLE) as server:
        holds = holds_ms(server, 2_000)
    print(f"Rows that count an image are held for {median(holds):.2f} ms; p95 {percentile(holds, 95):.2f}.\n")
    rows = [_told(outage, recovery(outage)) for outage in _OUTAGES]
    print(f"{aligned([_RECOVERED, *rows])}\n")
    print(footer(told([], about, [], program="tests.benchmarks.simulation")))


_OUTAGES = [
    Outage(away, seconds, capacity)
    for seconds in (600, HOUR, 6 * HOUR)
    for away in AWAY
    for capacity in (1.25, 2)
]
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
