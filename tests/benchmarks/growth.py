"""Whether a ledger that has grown for a year is slower than a new one: callbacks, claims, archiving, status.

The grown ones (`tests/benchmarks/archive.py`) are measured by turns with an empty one, each time with new
jobs beside the old ones.
"""

from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import httpx

from receiver.jobs.metrics import from_ledger
from receiver.schedule import system_clock
from storage.ledger.backlog import Backlog
from storage.ledger.database import Database
from storage.ledger.leases import ClaimBudget
from storage.ledger.ledger import Ledger
from tests.benchmarks import archiving, callbacks, ledgers
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.grounds import DATABASES, Grounds, Kind

SIZES = (0, 100_000, 1_000_000)
QUICK = (0, 500)
ROUNDS = 3
CLAIMS = 100
AT_ONCE = 8
"""Jobs in one claim, as many as a worker has threads."""
IMAGES = 160

NO_SLOWER = Target(least=1 / 1.2)
NO_LONGER = Target(most=1.2)


@dataclass
class Found:
    acknowledged: list[float] = field(default_factory=list)
    """A second."""
    claim_ms: list[float] = field(default_factory=list)
    archived: list[float] = field(default_factory=list)
    """Images a second."""
    status_ms: list[float] = field(default_factory=list)
    metrics_ms: list[float] = field(default_factory=list)
    """What `/metrics` reads of the ledger, each time anew."""


def run(grounds: Grounds) -> list[Figure]:
    return [line for kind in DATABASES for line in _of(grounds, kind)]


def _of(grounds: Grounds, kind: Kind) -> list[Figure]:
    sizes = QUICK if grounds.quick else SIZES
    grown = {size: grounds.grown_ledger(kind, size, images=1, callbacks=True) for size in sizes}
    found = {size: Found() for size in sizes}
    for _ in grounds.rounds(ROUNDS):
        for size, ledger in grown.items():
            _measure(grounds, ledger, found[size])
    return [line for size in sizes[1:] for line in _lines(f"{size:,} jobs, {kind}", found[size], found[0])]


def _measure(grounds: Grounds, ledger: str, found: Found) -> None:
    found.acknowledged.append(callbacks.on_service(grounds, ledger).rate)
    database = Database.open(ledger)
    try:
        ledgers.finish(database)
        found.claim_ms.append(_claim_ms(grounds, database))
        ledgers.finish(database)
        links = grounds.images.links(8 if grounds.quick else IMAGES)
        found.archived.append(archiving.darkroom(grounds, ledger, links).rate)
        found.status_ms.append(_status_ms(grounds, ledger))
        found.metrics_ms.append(_metrics_ms(database))
    finally:
        database.close()


def _claim_ms(grounds: Grounds, database: Database) -> float:
    """The median of what it takes to claim a worker's fill of jobs that are due."""
    times = 10 if grounds.quick else CLAIMS
    ledgers.begin(database, ["http://127.0.0.1/0.png"] * (times * AT_ONCE), ready=True)
    ledger, took = Ledger(database, system_clock), []
    for _ in range(times):
        began = perf_counter()
        claimed = ledger.claim("bench", ClaimBudget(AT_ONCE))
        took.append((perf_counter() - began) * 1000)
        if len(claimed) != AT_ONCE:
            raise RuntimeError(f"{len(claimed)} jobs were claimed, not {AT_ONCE}")
    return median(took)


def _status_ms(grounds: Grounds, ledger: str) -> float:
    took = []
    with (
        grounds.serving(ledger, "--no-work") as process,
        httpx.Client(base_url=process.url, trust_env=False, timeout=60) as http,
    ):
        for _ in range(11):
            began = perf_counter()
            http.get("/v1/status").raise_for_status()
            took.append((perf_counter() - began) * 1000)
    return median(took)


def _metrics_ms(database: Database) -> float:
    ledger, backlog, took = Ledger(database, system_clock), Backlog(database, system_clock), []
    for _ in range(21):
        # A new one each time, because each remembers what it has read.
        read = from_ledger(ledger, backlog, system_clock)
        began = perf_counter()
        read()
        took.append((perf_counter() - began) * 1000)
    return median(took)


def _lines(where: str, ours: Found, empty: Found) -> list[Figure]:
    def line(what: str, unit: str, name: str, target: Target | None = None) -> Figure:
        each, others = getattr(ours, name), getattr(empty, name)
        return Figure("growth", f"{what}, {where}", median(each), unit, "empty", median(others), target, each)

    return [
        line("acknowledged", "a second", "acknowledged", NO_SLOWER),
        line("a claim", "ms", "claim_ms", NO_LONGER),
        line("images archived", "a second", "archived", NO_SLOWER),
        line("status", "ms", "status_ms", NO_LONGER),
        line("metrics", "ms", "metrics_ms", NO_LONGER),
    ]
