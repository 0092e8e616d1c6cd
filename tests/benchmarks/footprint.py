"""How soon the service is ready and how much memory it holds.

Beside it stands a process of uvicorn and Starlette with a route that does nothing.
"""

from statistics import median

import httpx

from tests.benchmarks.figures import Figure
from tests.benchmarks.grounds import BESIDE, Grounds, bare
from tests.support.live import IMAGEN
from tests.support.processes import MIB, Process, watch_rss

STARTS = 5
JOBS = 20
LARGE = {"sandbox": {"fault": "bytes", "bytes": 50 * MIB}, "output_format": "png"}
AT_ONCE = 16
"""Jobs at the same time, and the large images of the last figure."""


def run(grounds: Grounds) -> list[Figure]:
    ledger = grounds.new_ledger("sqlite")
    concurrency = {"DARKROOM_WORKER__CONCURRENCY": str(AT_ONCE)}
    starts, idle, threads, bare_starts, bare_idle = [], [], [], [], []
    for _ in grounds.rounds(STARTS):
        with bare() as process:
            bare_starts.append(process.ready_s)
            bare_idle.append(process.rss() / MIB)
        with grounds.serving(ledger, **concurrency) as process:
            starts.append(process.ready_s)
            await_workers(process)
            idle.append(process.rss() / MIB)
        with grounds.serving(ledger, **{BESIDE: "0"}) as process:
            threads.append(process.rss() / MIB)
    with grounds.serving(ledger, **concurrency) as process:
        jobs, large = (4, 1) if grounds.quick else (JOBS, AT_ONCE)
        archive(process, jobs)
        used = process.rss() / MIB
        most = watch_rss(process, lambda: archive(process, large, params=LARGE)) / MIB
    soon, small = median(bare_starts), median(bare_idle)
    return [
        Figure("footprint", "start to ready", median(starts), "s", "a bare route", soon, each=starts),
        Figure("footprint", "resident, idle", median(idle), "MiB", "a bare route", small, each=idle),
        Figure("footprint", "resident, idle, no worker", median(threads), "MiB", "idle", median(idle)),
        Figure("footprint", f"resident, after {jobs} jobs", used, "MiB", "idle", median(idle)),
        Figure("footprint", f"most, {large} images of 50 MiB at once", most, "MiB", "idle", median(idle)),
    ]


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
