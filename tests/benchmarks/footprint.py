"""How soon the service is ready and how much memory it holds.

Memory is the proportional set size, added up over its processes: what several share counts once. Beside the
start stands a process that does nothing but import Starlette, SQLAlchemy and boto3. All of them find their
bytecode, as they do where Darkroom is installed, and the bucket, in which SeaweedFS takes a fifth of a second
for the first object of all.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from time import monotonic

import httpx

from tests.benchmarks.figures import Figure, Target
from tests.benchmarks.grounds import BESIDE, Grounds, bare, cpu_s
from tests.support.live import IMAGEN
from tests.support.processes import MIB, Process, watch_rss

STARTS = 7
JOBS = 20
LARGE = {"sandbox": {"fault": "bytes", "bytes": 50 * MIB}, "output_format": "png"}
AT_ONCE = 16
"""Jobs at the same time, and the large images of the last figure."""
LIBRARIES = "import starlette.applications, starlette.routing, sqlalchemy, boto3"
SOON = Target(most=1.2)
SMALL = Target(most=140, of="figure")
CALLBACKS_SMALL = Target(most=70, of="figure")
CALLBACKS = ("--only", "callbacks")
BUCKET = "bench-footprint"


@dataclass
class Starts:
    """What each start of one kind took and held."""

    ready_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    """Processor time until then, of all its processes."""
    pss_mib: list[float] = field(default_factory=list)

    def note(self, process: Process, *, worker: bool = False) -> None:
        self.ready_s.append(process.ready_s)
        self.cpu_s.append(cpu_s(process.child.pid))
        if worker:
            await_workers(process)
        self.pss_mib.append(process.pss() / MIB)


def run(grounds: Grounds) -> list[Figure]:
    ledger = grounds.new_ledger("sqlite")
    same = {"DARKROOM_S3__BUCKET": BUCKET}
    concurrency = same | {"DARKROOM_WORKER__CONCURRENCY": str(AT_ONCE)}
    whole, callbacks, threads, imports = Starts(), Starts(), Starts(), Starts()
    bare_idle = []
    with bytecode_kept(grounds, ledger):
        for _ in grounds.rounds(STARTS):
            note_imports(imports)
            with grounds.serving(ledger, **concurrency) as process:
                whole.note(process, worker=True)
            with grounds.serving(ledger, *CALLBACKS) as process:
                callbacks.note(process)
            with grounds.serving(ledger, **same, **{BESIDE: "0"}) as process:
                threads.note(process)
            with bare() as process:
                bare_idle.append(process.pss() / MIB)
        with grounds.serving(ledger, **concurrency) as process:
            jobs, large = (4, 1) if grounds.quick else (JOBS, AT_ONCE)
            archive(process, jobs)
            used = process.pss() / MIB
            most = watch_rss(process, lambda: archive(process, large, params=LARGE)) / MIB
    idle = median(whole.pss_mib)
    return [
        *_start("serve", whole, imports),
        *_start("serve --only callbacks", callbacks, imports),
        _memory("idle", whole, "a bare route", median(bare_idle), SMALL),
        _memory("idle, --only callbacks", callbacks, "a bare route", median(bare_idle), CALLBACKS_SMALL),
        _memory("idle, no worker", threads, "idle", idle),
        Figure("footprint", f"memory, after {jobs} jobs", used, "MiB", "idle", idle),
        Figure("footprint", f"resident at most, {large} images of 50 MiB at once", most, "MiB", "idle", idle),
    ]


def _start(what: str, ours: Starts, imports: Starts) -> Iterator[Figure]:
    theirs = "the imports of Starlette, SQLAlchemy and boto3"
    cpu = median(ours.cpu_s), "s", theirs, median(imports.cpu_s)
    yield Figure("footprint", f"processor time until ready, {what}", *cpu, each=ours.cpu_s)
    ready = median(ours.ready_s), "s", theirs, median(imports.ready_s)
    yield Figure("footprint", f"start to ready, {what}", *ready, SOON, ours.ready_s)


def _memory(what: str, ours: Starts, against: str, compared: float, target: Target | None = None) -> Figure:
    held = median(ours.pss_mib), "MiB", against, compared
    return Figure("footprint", f"memory, {what}", *held, target, ours.pss_mib)


@contextmanager
def bytecode_kept(grounds: Grounds, ledger: str) -> Iterator[None]:
    """Have every process find its bytecode, whatever the environment says and wherever the sources lie; and
    the bucket.
    """
    before = dict(os.environ)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(grounds.new_folder("bytecode"))
    try:
        note_imports(Starts())
        with grounds.serving(ledger, DARKROOM_S3__BUCKET=BUCKET) as process:
            await_workers(process)
        with bare():
            pass
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def note_imports(imports: Starts) -> None:
    """Import the libraries in a process, and note how long that took."""
    began, before = monotonic(), os.times()
    subprocess.run([sys.executable, "-c", LIBRARIES], check=True)
    imports.ready_s.append(monotonic() - began)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    imports.cpu_s.append(used)


def await_workers(process: Process) -> None:
    """Wait until every process is ready to work: what each holds grows until then."""
    with httpx.Client(base_url=process.url, trust_env=False, timeout=40) as http:
        job = http.post("/v1/jobs", json=IMAGEN).json()["id"]
        while http.get(f"/v1/jobs/{job}?wait=30").json()["status"] != "archived":
            pass


def archive(process: Process, jobs: int, **more: object) -> None:
    with httpx.Client(base_url=process.url, timeout=40) as http:
        ids = [http.post("/v1/jobs", json={**IMAGEN, **more}).json()["id"] for _ in range(jobs)]
        for job_id in ids:
            while (job := http.get(f"/v1/jobs/{job_id}?wait=30").json())["status"] != "archived":
                if job["error"]:
                    raise RuntimeError(job["error"])
