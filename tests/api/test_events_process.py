"""Events between processes: two of them on one ledger, a stop and a restart, and what waiting costs."""

import asyncio
from pathlib import Path

import httpx

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.benchmarks.waiting import clients, waiting
from tests.support.live import IMAGEN, ULTRA
from tests.support.processes import Process, environment, free_port, serving, working
from tests.support.streams import PATIENCE_S, Told, everything, following


def test_who_follows_sees_no_restart_nor_other_worker(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    variables = environment(s3_server, sandbox, tmp_path, free_port())
    found: list[Told] = []

    async def follow(process: Process, last: str | None) -> str:
        """Until the stream ends; answers where."""
        async with following(process.url, last) as source:
            async for told in source:
                found.append(told)
            assert source.comments == ["the service stops; reconnect"]
            return source.last_id

    async def make(url: str, jobs: int) -> set[str]:
        """Submit, wait for all of them, and answer how they ended."""
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_S) as http:
            bodies = [(IMAGEN, ULTRA)[number % 2] for number in range(jobs)]
            ids = [(await http.post("/v1/jobs", json=body)).json()["id"] for body in bodies]
            waits = [http.get(f"/v1/jobs/{job_id}?wait=20") for job_id in ids]
            return {answer.json()["status"] for answer in await asyncio.gather(*waits)}

    async def before(process: Process) -> str:
        url = httpx.URL(process.url)
        reader = asyncio.create_task(follow(process, None))
        unread = ["/v1/events?since=0"] * 50
        async with clients(url, unread), httpx.AsyncClient(base_url=url, trust_env=False) as http:
            await waiting(http, 51)
            assert await make(process.url, 4) == {"archived"}
            code, took_s = await asyncio.to_thread(process.terminate)
        assert code == 0, process.log.read_text()
        assert took_s < 10
        assert "graceful" not in process.log.read_text(), "nobody who waits was thrown out"
        return await reader

    async def after(process: Process, last: str) -> list[Told]:
        reader = asyncio.create_task(follow(process, last))
        assert await make(process.url, 4) == {"archived"}
        told = await everything(process.url, since="0")
        await asyncio.to_thread(process.terminate)
        await reader
        return told

    with working(variables, tmp_path):
        with serving(variables, tmp_path, "--no-work") as process:
            last = asyncio.run(before(process))
        with serving(variables, tmp_path, "--no-work") as process:
            told = asyncio.run(after(process, last))
    assert found == told
    assert len(told) == 8 * len(["queued", "submitting", "running", "ready", "output", "archived"])
    assert "Traceback" not in process.log.read_text()
