"""What 200 clients cost that only wait: `python -m tests.benchmarks.waiting`.

Half of them follow `GET /v1/events`, half hold `GET /v1/jobs/{id}?wait=60`, each on a connection of its own.
The service does no work meanwhile, so that every SQL statement is owed to those who wait.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import httpx
import psutil

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.benchmarks import counted
from tests.support.live import IMAGEN, QUICK
from tests.support.processes import MIB, Process, environment, free_port, serving

CLIENTS = 200
IDLE_S = 10.0
PATIENCE_S = 30.0
LOOKS = 4
"""SQL statements in half a second, at most, when nobody does anything but wait."""


@dataclass(frozen=True)
class Waiting:
    """What was measured."""

    before: int
    """Resident bytes before the clients came."""
    after: int
    """And while they waited."""
    cpu_s: float
    statements: int
    """SQL statements."""
    told_ms: float
    """Until the last of the streams had an event, from the request that made it."""


async def measure(process: Process, count: Path, *, idle_s: float) -> Waiting:
    """Have the clients come, let them wait for a while, and have something happen."""
    url = httpx.URL(process.url)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_S) as http:
        job_id = (await http.post("/v1/jobs", json=IMAGEN)).json()["id"]
        warm = [f"/v1/jobs/{job_id}?wait=0.1", "/v1/events?wait=0.1"]
        async with clients(url, warm * 5):
            await waiting(http, 0)
        before = process.rss()
        paths = [f"/v1/jobs/{job_id}?wait=60", "/v1/events"] * (CLIENTS // 2)
        async with clients(url, paths) as readers:
            await waiting(http, CLIENTS)
            await settled(count)
            began, ran = cpu_s(process), counted.statements(count)
            await asyncio.sleep(idle_s)
            cpu, statements, after = cpu_s(process) - began, counted.statements(count) - ran, process.rss()
            streams = readers[1::2]
            now = monotonic()
            await http.post("/v1/jobs", json=IMAGEN)
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(reader.readuntil(b"event: job\n") for reader in streams))
            return Waiting(before, after, cpu, statements, (monotonic() - now) * 1000)


@asynccontextmanager
async def clients(url: httpx.URL, paths: list[str]) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Ask for each path on a connection of its own, and read nothing yet."""
    opened = [await asyncio.open_connection(url.host, url.port) for _ in paths]
    try:
        for path, (_, writer) in zip(paths, opened, strict=True):
            writer.write(f"GET {path} HTTP/1.1\r\nhost: {url.host}\r\n\r\n".encode())
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()


async def waiting(http: httpx.AsyncClient, number: int) -> None:
    """Return when so many requests wait, by the service's own metric."""
    async with asyncio.timeout(PATIENCE_S):
        # Nothing to wait on: the service tells nobody who waits.
        while f"\ndarkroom_requests_waiting {number}.0\n" not in (await http.get("/metrics")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def settled(count: Path) -> None:
    """Return when those who have come have also looked at what they wait for, which each does once."""
    before = -1
    async with asyncio.timeout(PATIENCE_S):
        # From then on there is a look at the events each second.
        while (now := counted.statements(count)) > before + LOOKS:
            before = now
            await asyncio.sleep(0.5)


def cpu_s(process: Process) -> float:
    """Processor time that a process has used."""
    times = psutil.Process(process.child.pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name, SandboxServer(QUICK) as sandbox:
        folder = Path(name)
        count = folder / "statements"
        with EmbeddedS3(folder / "s3") as s3:
            variables = environment(s3, sandbox, folder, free_port()) | {counted.VARIABLE: str(count)}
            with serving(variables, folder, "--no-work", module="tests.benchmarks.counted") as process:
                found = asyncio.run(measure(process, count, idle_s=IDLE_S))
    print(f"{CLIENTS} clients, {CLIENTS // 2} of them on event streams and {CLIENTS // 2} on long polls")
    print(f"resident, before                {found.before / MIB:8.1f} MiB")
    print(f"resident, while they wait       {found.after / MIB:8.1f} MiB")
    print(f"more for each of them           {(found.after - found.before) / CLIENTS / 1024:8.1f} KiB")
    print(f"processor time in {IDLE_S:.0f} s of that   {found.cpu_s:8.2f} s")
    print(f"SQL statements in these {IDLE_S:.0f} s    {found.statements:8d}")
    print(f"until all streams had an event  {found.told_ms:8.1f} ms")


if __name__ == "__main__":
    main()
