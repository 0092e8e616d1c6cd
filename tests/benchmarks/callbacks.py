"""What a callback costs that is verified, made durable and answered; how many a second, and how soon.

Beside it stand a route in the same server and framework that answers 204 to the same requests and does
nothing, and a receiver as a user would write it by hand. Each tenth callback comes twice. The processor time
is that of the service and of PostgreSQL.
"""

import pickle
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from statistics import median

from storage.ledger.database import Database
from tests.benchmarks import ledgers, load
from tests.benchmarks.figures import Figure, Target, percentile
from tests.benchmarks.grounds import DATABASES, Grounds, Kind, bare, cpu_s, port_of
from tests.benchmarks.load import Sent
from tests.support.processes import Process

CONNECTIONS = 32
JOBS = 8_000
BY_HAND_JOBS = 1_500
WARM = 500
EVERY = 10
"""One of so many callbacks comes twice."""
ROUNDS = 3
BURST = 600
"""Callbacks that come while images are archived, each of which brings an image of a megabyte more."""
RATE = 60.0
"""How many of them come in a second."""
BACKLOG = 1_500
"""Jobs that wait to be archived when they begin to come, so that there is no end to it before the last."""
BARE_TIMES = 4
"""How often the route that does nothing is sent them all, or it would be over too soon to be measured."""

BUDGET = Target(most=4)
"""How many bare requests' processor time a callback may take."""
RATE_LEAST = {"sqlite": Target(least=0.25), "postgresql": Target(least=0.2)}
P99 = {"sqlite": Target(most=4), "postgresql": None}
BY_HAND = Target(least=1.5)
CALM = Target(most=1.5)
"""How many times its 99th percentile a burst of archiving may make it."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of callbacks against one server."""

    sent: Sent
    cpu_s: float
    """Of the service and the database together."""

    @property
    def rate(self) -> float:
        return len(self.sent.waits_ms) / self.sent.took_s

    @property
    def cpu_us(self) -> float:
        return self.cpu_s * 1e6 / len(self.sent.waits_ms)


def run(grounds: Grounds) -> list[Figure]:
    runs: dict[str, list[Run]] = {name: [] for name in ("bare", "by hand", *DATABASES)}
    for _ in grounds.rounds(ROUNDS):
        runs["bare"].append(on_bare(grounds))
        runs["by hand"].append(by_hand(grounds))
        for kind in DATABASES:
            runs[kind].append(on_service(grounds, grounds.new_ledger(kind)))
    figures = [line for kind in DATABASES for line in _lines(kind, runs[kind], runs["bare"])]
    figures += _beside_by_hand(runs["sqlite"], runs["by hand"])
    return figures + [_burst(grounds, kind) for kind in DATABASES]


def on_bare(grounds: Grounds) -> Run:
    jobs = [ledgers.Begun(f"{n:036}", f"theirs-{n}", "http://127.0.0.1/0.png") for n in range(_jobs(grounds))]
    with bare() as process:
        return _measure(grounds, process, jobs, [process.child.pid], times=BARE_TIMES)


def by_hand(grounds: Grounds) -> Run:
    """Send callbacks to the receiver that is written by hand; fewer, for it takes longer over each."""
    number = 100 if grounds.quick else BY_HAND_JOBS
    jobs = [ledgers.Begun(f"{n:036}", f"theirs-{n}", "http://127.0.0.1/0.png") for n in range(number + WARM)]
    with bare(str(grounds.new_folder("by-hand") / "ledger.sqlite3")) as process:
        return _measure(grounds, process, jobs, [process.child.pid], warm=WARM)


def on_service(grounds: Grounds, ledger: str) -> Run:
    """Send callbacks to a service that only takes them in, on a ledger that may hold other jobs."""
    database = Database.open(ledger)
    jobs = ledgers.begin(database, ["http://127.0.0.1/0.png"] * _jobs(grounds))
    database.close()
    with grounds.serving(ledger, "--no-work") as process:
        pids = [process.child.pid, *grounds.database_pids(ledger)]
        return _measure(grounds, process, jobs, pids)


def _jobs(grounds: Grounds) -> int:
    return 300 if grounds.quick else JOBS + WARM


def _measure(
    grounds: Grounds,
    process: Process,
    jobs: list[ledgers.Begun],
    pids: list[int],
    *,
    times: int = 1,
    warm: int | None = None,
) -> Run:
    requests = ledgers.callbacks(port_of(process), jobs)
    warm = warm or (WARM if len(jobs) > JOBS else len(jobs) // 4)
    send(grounds, process, requests[:warm])
    repeated = ledgers.repeated(requests[warm:], EVERY) * times
    before = cpu_s(*pids)
    sent = send(grounds, process, repeated)
    used = cpu_s(*pids) - before
    if times == 1:
        check(sent, new=len(requests) - warm, of=len(repeated))
    elif sent.answers != {"204 ": len(repeated)}:
        raise RuntimeError(f"the bare route answered {sent.answers}")
    return Run(sent, used)


def send(grounds: Grounds, process: Process, requests: list[bytes], rate: float = 0) -> Sent:
    file = grounds.new_folder("load") / "requests"
    file.write_bytes(pickle.dumps(requests))
    return load.result(load.begin(port_of(process), file, connections=CONNECTIONS, rate=rate))


def check(sent: Sent, *, new: int, of: int) -> None:
    """Raise unless each callback was taken in once, and each repetition was seen to be one."""
    wanted = {'200 {"status":"accepted"}': new, '200 {"status":"duplicate"}': of - new}
    if sent.answers != {answer: number for answer, number in wanted.items() if number}:
        raise RuntimeError(f"callbacks were answered {sent.answers}, not {wanted}")


def _lines(kind: Kind, ours: list[Run], theirs: list[Run]) -> list[Figure]:
    def line(
        what: str,
        unit: str,
        of: Callable[[Run], float],
        against: str = "a bare route",
        target: Target | None = None,
    ) -> Figure:
        each = [of(run) for run in ours]
        compared = median(of(run) for run in theirs)
        return Figure("callbacks", f"{what}, {kind}", median(each), unit, against, compared, target, each)

    return [
        line("processor time of each", "us", lambda run: run.cpu_us, target=BUDGET),
        line("acknowledged", "a second", lambda run: run.rate, target=RATE_LEAST[kind]),
        line("p50", "ms", lambda run: percentile(run.sent.waits_ms, 50)),
        line("p99", "ms", lambda run: percentile(run.sent.waits_ms, 99), target=P99[kind]),
    ]


def _beside_by_hand(ours: list[Run], theirs: list[Run]) -> list[Figure]:
    against = "a receiver by hand"
    rates, costs = [run.rate for run in ours], [run.cpu_us for run in ours]
    return [
        Figure("callbacks", "acknowledged, sqlite", median(rates), "a second", against,
               median(run.rate for run in theirs), BY_HAND, rates),
        Figure("callbacks", "processor time of each, sqlite", median(costs), "us", against,
               median(run.cpu_us for run in theirs), None, costs),
    ]  # fmt: skip


def _burst(grounds: Grounds, kind: Kind) -> Figure:
    """The 99th percentile while images are archived, against the same callbacks without that."""
    each, without = [], []
    for _ in grounds.rounds(ROUNDS):
        with grounds.serving(ledger := grounds.new_ledger(kind), "--no-work") as process:
            without.append(paced(grounds, ledger, process))
        with grounds.serving(ledger := grounds.new_ledger(kind)) as process:
            each.append(paced(grounds, ledger, process))
    what, against = f"p99 in a burst of archiving, {kind}", "with no archiving"
    return Figure("callbacks", what, median(each), "ms", against, median(without), CALM, each)


def paced(grounds: Grounds, ledger: str, process: Process) -> float:
    """The 99th percentile of callbacks' waits, in milliseconds, while a service has a backlog of images."""
    with closing(Database.open(ledger)) as database:
        jobs = ledgers.begin(database, grounds.images.links(60 if grounds.quick else BURST))
        ledgers.begin(database, grounds.images.links(150 if grounds.quick else BACKLOG), ready=True)
        requests = ledgers.callbacks(port_of(process), jobs)
        first = len(requests) // 6
        send(grounds, process, requests[:first])
        sent = send(grounds, process, requests[first:], RATE)
        check(sent, new=len(requests) - first, of=len(requests) - first)
        if ledgers.unfinished(database) <= len(requests) - first:
            raise RuntimeError("the burst of archiving was over before the callbacks")
    return percentile(sent.waits_ms, 99)
