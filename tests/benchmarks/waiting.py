"""What 200 clients cost that only wait.

Half of them follow `GET /v1/events`, half hold `GET /v1/jobs/{id}?wait=60`, each on a connection of its own.
The service does no work meanwhile, so that every SQL statement is owed to those who wait.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import httpx

from tests.benchmarks import counted
from tests.benchmarks.figures import Figure
from tests.benchmarks.grounds import BESIDE, Grounds, cpu_s
from tests.support.live import IMAGEN
from tests.support.processes import MIB, Process

CLIENTS = 200
IDLE_S = 10.0
PATIENCE_S = 30.0
LOOKS = 4
"""SQL statements in half a second, at most, when nobody does anything but wait."""


class Waiting(NamedTuple):
    before: int
    """Resident bytes before the clients came."""
    after: int
    """And while they waited."""
    cpu_s: float
    statements: int
    told_ms: float
    """Until the last of the streams had an event, from the request that made it."""


def run(grounds: Grounds) -> list[Figure]:
    count = grounds.new_folder("count") / "counts"
    variables = {counted.VARIABLE: str(count), BESIDE: "0"}
    ledger, idle_s = grounds.new_ledger("sqlite"), 1 if grounds.quick else IDLE_S
    with grounds.serving(ledger, "--no-work", module="tests.benchmarks.counted", **variables) as process:
        found = asyncio.run(measure(process, count, idle_s=idle_s))
    before = found.before / MIB
    return [
        Figure("waiting", f"resident, {CLIENTS} clients", found.after / MIB, "MiB", "before", before),
        Figure("waiting", "processor time", found.cpu_s / idle_s, "s a second"),
        Figure("waiting", "SQL statements", found.statements / idle_s, "a second"),
        Figure("waiting", "until all streams had an event", found.told_ms, "ms"),
    ]


async def measure(process: Process, count: Path, *, idle_s: float) -> Waiting:
    """Have the clients come, let them wait for a while, and have something happen."""
    url, pid = httpx.URL(process.url), process.child.pid
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
            began, ran = cpu_s(pid), counted.counts(count).statements
            await asyncio.sleep(idle_s)
            cpu, statements, after = cpu_s(pid) - began, counted.counts(count).statements - ran, process.rss()
            now = monotonic()
            await http.post("/v1/jobs", json=IMAGEN)
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(reader.readuntil(b"event: job\n") for reader in readers[1::2]))
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
        while (now := counted.counts(count).statements) > before + LOOKS:
            before = now
            await asyncio.sleep(0.5)
