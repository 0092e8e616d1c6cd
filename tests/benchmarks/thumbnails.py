"""What thumbnails cost: `python -m tests.benchmarks.thumbnails`."""

from __future__ import annotations

import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import httpx
import psutil

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxConfig, SandboxServer
from tests.support.live import ULTRA, Live, started
from tests.support.processes import MIB

IMAGES = 48
ROUNDS = 5
AT_ONCE = 6
"""As many connections as a browser opens."""


def grid(live: Live, outputs: list[str]) -> tuple[float, int]:
    """Fetch all thumbnails as a browser would; answers the seconds and the bytes."""
    with httpx.Client(base_url=live.url, trust_env=False) as http, ThreadPoolExecutor(AT_ONCE) as pool:
        began = perf_counter()
        answers = list(pool.map(lambda output: http.get(f"/v1/outputs/{output}/thumbnail"), outputs))
        seconds = perf_counter() - began
    assert {answer.status_code for answer in answers} == {200}
    return seconds, sum(len(answer.content) for answer in answers)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            EmbeddedS3(folder / "s3") as s3,
            SandboxServer(SandboxConfig(latency_s=(0, 0.05), image_px=1024)) as sandbox,
            started(s3, folder / "data", sandbox=sandbox) as live,
        ):
            # One after the other, because the sandbox draws them in this process.
            jobs = [live.make(ULTRA, num_images=2, seed=seed) for seed in range(IMAGES // 2)]
            outputs = [output for job in jobs for output in job["outputs"]]
            first, size = grid(live, outputs)
            helpers = [
                child for child in psutil.Process().children() if "thumbnailing" in " ".join(child.cmdline())
            ]
            resident = max(helper.memory_info().rss for helper in helpers)
            later = statistics.median(grid(live, outputs)[0] for _ in range(ROUNDS))
    print(f"{IMAGES} thumbnails, first asked for  {first * 1000:6.0f} ms")
    print(f"the same, from the bucket      {later * 1000:6.0f} ms   (median of {ROUNDS})")
    print(f"one of them                    {size / IMAGES / 1024:6.1f} KiB")
    print(f"helpers                        {len(helpers):6}, {resident / MIB:.0f} MiB each at most")


if __name__ == "__main__":
    main()
