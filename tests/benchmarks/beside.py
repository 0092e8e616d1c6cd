"""Who should archive: threads of the process that takes callbacks, or one or two processes beside it.

Images a second and what each costs, the 99th percentile of callbacks' waits meanwhile, how soon one image is
archived when nothing else is to be done, and the memory of all processes together.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from tests.benchmarks import archiving, callbacks, latency
from tests.benchmarks.figures import Figure, Target, percentile
from tests.benchmarks.grounds import BESIDE, DATABASES, Grounds, Kind
from tests.support.processes import MIB

WORKERS = (0, 1, 2)
"""Processes beside the one that serves; with 0 its threads work."""
IMAGES = 240
ONE_BY_ONE = 60
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Run:
    """One arrangement, once."""

    rate: float
    """Images a second."""
    cpu_ms: float
    """Of all processes and the database, for each image."""
    burst_ms: float
    """The 99th percentile of callbacks' waits while images are archived."""
    idle_ms: float
    """The median from a callback until its image is archived, one by one."""
    memory_mib: float
    """Resident after the burst."""


def run(grounds: Grounds) -> list[Figure]:
    """Measure."""
    found: dict[tuple[Kind, int], list[Run]] = {}
    for _ in grounds.rounds(ROUNDS):
        for kind in DATABASES:
            for workers in WORKERS:
                found.setdefault((kind, workers), []).append(_arranged(grounds, kind, workers))
    return [
        line
        for kind in DATABASES
        for workers in WORKERS
        for line in _lines(kind, workers, found[kind, workers], found[kind, 0])
    ]


def _arranged(grounds: Grounds, kind: Kind, workers: int) -> Run:
    links = grounds.images.links(24 if grounds.quick else IMAGES)
    archived = archiving.darkroom(grounds, grounds.new_ledger(kind), links, workers=workers)
    ledger = grounds.new_ledger(kind)
    with grounds.serving(ledger, **{BESIDE: str(workers)}) as process:
        burst_ms = callbacks.paced(grounds, ledger, process)
        memory = process.rss()
    waits = latency.waits(grounds, kind, links[:8] if grounds.quick else links[:ONE_BY_ONE], workers=workers)
    return Run(archived.rate, archived.cpu_ms, burst_ms, percentile(waits, 50), memory / MIB)


def _lines(kind: Kind, workers: int, ours: list[Run], threads: list[Run]) -> list[Figure]:
    who = "threads" if workers == 0 else f"{workers} process{'es' * (workers > 1)} beside"

    def line(what: str, unit: str, name: str, target: Target | None = None) -> Figure:
        each = [float(getattr(run, name)) for run in ours]
        against, compared = (
            ("threads", median(getattr(run, name) for run in threads)) if workers else ("", None)
        )
        return Figure("beside", f"{what}, {who}, {kind}", median(each), unit, against, compared, target, each)

    return [
        line("images", "a second", "rate"),
        line("processor time of each", "ms", "cpu_ms"),
        line("callbacks' p99 in a burst", "ms", "burst_ms", callbacks.PROMPT),
        line("callback to archived, p50", "ms", "idle_ms"),
        line("memory", "MiB", "memory_mib"),
    ]
