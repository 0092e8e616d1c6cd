"""How soon the service is ready and how much memory it holds: `python -m tests.benchmarks.footprint`."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import httpx

from receiver.embedded import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.live import IMAGEN, QUICK
from tests.processes import MIB, Process, environment, free_port, serving, watch_rss

STARTS = 5
LARGE = {"sandbox": {"fault": "bytes", "bytes": 50 * MIB}, "output_format": "png"}


def archive(process: Process, jobs: int, **more: object) -> None:
    """Submit so many jobs at once and wait until each is archived."""
    with httpx.Client(base_url=process.url, timeout=40) as http:
        ids = [http.post("/v1/jobs", json={**IMAGEN, **more}).json()["id"] for _ in range(jobs)]
        for job_id in ids:
            while (job := http.get(f"/v1/jobs/{job_id}?wait=30").json())["status"] != "archived":
                if job["error"]:
                    raise RuntimeError(job["error"])


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name, SandboxServer(QUICK) as sandbox:
        folder = Path(name)
        with EmbeddedS3(folder / "s3") as s3:
            variables = environment(s3, sandbox, folder, free_port(), DARKROOM_WORKER__CONCURRENCY="16")
            starts, idle = [], []
            for _ in range(STARTS):
                with serving(variables, folder) as process:
                    starts.append(process.ready_s)
                    idle.append(process.rss() / MIB)
            with serving(variables, folder) as process:
                archive(process, 20)
                used = process.rss() / MIB
                most = watch_rss(process, lambda: archive(process, 16, params=LARGE)) / MIB
    print(f"start to ready            {statistics.median(starts):6.2f} s   (median of {STARTS})")
    print(f"resident, idle            {statistics.median(idle):6.0f} MiB")
    print(f"resident, after 20 jobs   {used:6.0f} MiB")
    print(f"most, 16 images of 50 MiB {most:6.0f} MiB")


if __name__ == "__main__":
    main()
