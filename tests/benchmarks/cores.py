"""What a second process that takes callbacks on the same port brings: processor time and rate of both.

The sender, and PostgreSQL, run on the same cores.
"""

from contextlib import closing
from statistics import median

from storage.ledger.database import Database
from tests.benchmarks import ledgers
from tests.benchmarks.callbacks import check, send
from tests.benchmarks.figures import Figure
from tests.benchmarks.grounds import DATABASES, Grounds, Kind, cpu_s, port_of
from tests.support.processes import until

JOBS = 4_000
WARM = 500
ROUNDS = 5
PROCESSES = (1, 2)


def run(grounds: Grounds) -> list[Figure]:
    return [figure for kind in DATABASES for figure in _figures(grounds, kind)]


def _figures(grounds: Grounds, kind: Kind) -> list[Figure]:
    cpu_us: dict[int, list[float]] = {number: [] for number in PROCESSES}
    rates: dict[int, list[float]] = {number: [] for number in PROCESSES}
    for _ in grounds.rounds(ROUNDS):
        for number in PROCESSES:
            used, rate = _taken(grounds, kind, number)
            cpu_us[number].append(used)
            rates[number].append(rate)
    return [
        _compared(f"processor time of each callback, two processes, {kind}", "us", cpu_us),
        _compared(f"acknowledged by two processes, {kind}", "a second", rates),
    ]


def _compared(what: str, unit: str, of: dict[int, list[float]]) -> Figure:
    return Figure("cores", what, median(of[2]), unit, "one", median(of[1]), each=of[2])


def _taken(grounds: Grounds, kind: Kind, number: int) -> tuple[float, float]:
    """The processor time of a callback in microseconds, with the database, and how many came a second."""
    ledger = grounds.new_ledger(kind)
    wanted = 300 if grounds.quick else JOBS
    with closing(Database.open(ledger)) as database:
        jobs = ledgers.begin(database, ["http://127.0.0.1/0.png"] * (wanted + WARM))
    with grounds.serving(ledger, "--only", "callbacks", "--processes", str(number)) as process:
        until(lambda: process.log.read_text().count('"listening"') == number)
        requests = ledgers.callbacks(port_of(process), jobs)
        send(grounds, process, requests[:WARM])
        pids = [process.child.pid, *grounds.database_pids(ledger)]
        before = cpu_s(*pids)
        sent = send(grounds, process, requests[WARM:])
        used = cpu_s(*pids) - before
    check(sent, new=wanted, of=wanted)
    return used * 1e6 / wanted, wanted / sent.took_s
