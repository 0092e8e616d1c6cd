"""What a job costs where one, two or four processes work on the same PostgreSQL ledger.

All jobs are due at the same moment. On a machine with fewer cores than processes they cannot be faster, but
what each job costs should stay the same: what they fight over is time lost. A claim is lost if it brings
nothing, and a job is lost to a worker if its lease went to another one.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from storage.ledger.database import Database
from tests.benchmarks import archiving, counted, ledgers
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.grounds import BESIDE, Grounds, cpu_s
from tests.support.processes import Process

PROCESSES = (1, 2, 4)
JOBS = 400
WARM = 32
ROUNDS = 3

FLAT = Target(most=1.2)
NONE = Target(most=0, of="figure")


@dataclass(frozen=True, slots=True)
class Run:
    """So many processes, once. Times are in milliseconds for each job."""

    cpu_ms: float
    """Of all processes together."""
    database_ms: float
    rate: float
    """Jobs a second."""
    claims: float
    """For each job."""
    empty: float
    """Of a hundred claims."""
    lost: int
    """Jobs that two workers had at once."""


def run(grounds: Grounds) -> list[Figure]:
    found: dict[int, list[Run]] = {number: [] for number in PROCESSES}
    for _ in grounds.rounds(ROUNDS):
        for number in PROCESSES:
            found[number].append(_together(grounds, number))
    return [line for number in PROCESSES for line in _lines(number, found[number], found[1])]


def _together(grounds: Grounds, number: int) -> Run:
    ledger = grounds.new_ledger("postgresql")
    jobs = 24 if grounds.quick else JOBS
    files = [grounds.new_folder("count") / "counts" for _ in range(number)]
    with ExitStack() as opened:
        processes = [_begin(opened, grounds, ledger, str(file)) for file in files]
        database = Database.open(ledger)
        opened.callback(database.close)
        ledgers.begin(database, grounds.images.links(WARM), ready=True)
        archiving.await_archived(database)
        pids = [process.child.pid for process in processes]
        used, theirs = cpu_s(*pids), cpu_s(grounds.postgres.pid)
        before = [counted.counts(file) for file in files]
        begun = ledgers.begin(database, grounds.images.links(jobs), ready=True)
        began = time.time()
        archiving.await_archived(database)
        used, theirs = cpu_s(*pids) - used, cpu_s(grounds.postgres.pid) - theirs
        after = [counted.counts(file) for file in files]
        took = archiving.last_archived(database, begun) - began
        lost = sum(process.log.read_text().count("went to another worker") for process in processes)
    claims = sum(one.claims for one in after) - sum(one.claims for one in before)
    if not claims:
        raise RuntimeError(f"no statement that claims was seen; {counted.CLAIM!r} stands in it no more")
    empty = sum(one.empty for one in after) - sum(one.empty for one in before)
    return Run(
        1000 * used / jobs, 1000 * theirs / jobs, jobs / took, claims / jobs, 100 * empty / claims, lost
    )


def _begin(opened: ExitStack, grounds: Grounds, ledger: str, count: str) -> Process:
    more = {counted.VARIABLE: count, "DARKROOM_S3__BUCKET": grounds.shared, BESIDE: "0"}
    return opened.enter_context(grounds.serving(ledger, module="tests.benchmarks.counted", **more))


def _lines(number: int, ours: list[Run], one: list[Run]) -> list[Figure]:
    def line(what: str, unit: str, name: str, target: Target | None = None) -> Figure:
        each = [float(getattr(run, name)) for run in ours]
        compared = median(float(getattr(run, name)) for run in one)
        against, limit = ("", None) if number == 1 else ("one process", target)
        told = f"{what}, {number} process{'es' * (number > 1)}"
        return Figure(
            "replicas", told, median(each), unit, against, compared if against else None, limit, each
        )

    return [
        line("processor time of each job", "ms", "cpu_ms", FLAT),
        line("processor time of each job in PostgreSQL", "ms", "database_ms"),
        line("jobs", "a second", "rate"),
        line("claims for each job", "", "claims"),
        line("claims that brought nothing", "%", "empty"),
        line("jobs lost to another worker", "", "lost", NONE),
    ]
