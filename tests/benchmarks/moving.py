"""How long a ledger takes to move to PostgreSQL: `python -m tests.benchmarks.moving [JOBS] [--json FILE]`.

A ledger of so many jobs is written (`tests/benchmarks/archive.py`), each with two images and a callback, and
the newest with their events, as many as are kept. A service on it takes some more jobs in and is stopped.
`darkroom migrate-ledger` moves it to a PostgreSQL that writes as durably as usual, and a service there does
those jobs.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import psycopg

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.benchmarks import archive
from tests.support import postgres, running
from tests.support.live import IMAGEN, QUICK
from tests.support.processes import Process, environment, free_port, serving, watch_rss

WAITING = 20
"""Jobs that are queued when the ledger is moved."""

CALLBACKS = """
    INSERT INTO deliveries (
        id, job_id, gateway, received_at, headers, body, body_sha256, signature, applied_at, effect
    ) SELECT id, id, gateway, updated_at - 1000, '{"content-type": "application/json"}',
        CAST('{"reply": ' || reply || ', "prompt": "' || prompt || '"}' AS BLOB), request_sha256, 'valid',
        updated_at - 999, 'ready'
    FROM jobs"""
EVENTS = """
    INSERT INTO events (at, job_id, gateway, status)
    SELECT created_at + 1000 * place, id, gateway, status
    FROM (SELECT id, gateway, created_at FROM jobs ORDER BY number DESC LIMIT 100000), (
        SELECT 0 AS place, 'queued' AS status UNION ALL SELECT 1, 'submitting' UNION ALL SELECT 2, 'running'
        UNION ALL SELECT 3, 'ready' UNION ALL SELECT 4, 'archived')"""


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser(prog="python -m tests.benchmarks.moving", description=__doc__)
    asked.add_argument("jobs", type=int, nargs="?", default=200_000, metavar="JOBS")
    asked.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = asked.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        SandboxServer(QUICK) as sandbox,
        postgres.serving(fsync="on") as server,
        EmbeddedS3(Path(name) / "s3") as s3,
    ):
        folder = Path(name)
        variables = environment(s3, sandbox, folder, free_port(), DARKROOM_SECRET_KEYS="0123456789abcdef")
        figures = _measure(options.jobs, folder, variables, server)
    for what, value in figures.items():
        print(f"{what:50} {value:,}" if isinstance(value, int) else f"{what:50} {value:,.1f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


def _measure(
    jobs: int, folder: Path, variables: dict[str, str], server: postgres.Postgres
) -> dict[str, int | float]:
    path = folder / "data" / "ledger.sqlite3"
    path.parent.mkdir()
    began = perf_counter()
    archive.build(path, jobs * archive.IMAGES)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(CALLBACKS)
        connection.execute(EVENTS)
    built = perf_counter() - began
    with serving(variables, folder, "--no-work") as process:
        ids = [_submit(process.url, number) for number in range(WAITING)]
        process.terminate()
    name = server.create()
    told, memory = _move(path, server.url(name))
    rows = sum(table["rows"] for table in told["tables"])
    with closing(psycopg.connect(server.url(name))) as moved:
        size = moved.execute("SELECT pg_database_size(current_database())").fetchone()
    began = perf_counter()
    with serving(variables | {"DARKROOM_DATABASE_URL": server.url(name)}, folder) as process:
        ready = process.ready_s
        places = [_finish(process.url, job_id) for job_id in ids]
        counts = httpx.get(f"{process.url}/v1/status", timeout=60).json()
    assert places == ["archived"] * WAITING, places
    assert counts["balanced"], counts
    assert counts["archived"] == jobs + WAITING, counts
    return {
        "jobs": jobs,
        "rows": rows,
        "seconds to write the ledger": built,
        "MB of the SQLite ledger": path.stat().st_size / 1e6,
        "MB of the PostgreSQL ledger": (size or [0])[0] / 1e6,
        "seconds to move it, compared": told["seconds"],
        "rows a second": rows / told["seconds"],
        "MB of memory at most": memory,
        "seconds until a service there was ready": ready,
        f"seconds until its {WAITING} waiting jobs were archived": perf_counter() - began,
    }


def _move(path: Path, url: str) -> tuple[dict[str, Any], float]:
    """Move as an operator does; answers what was told, and the most memory, in MB, that it took."""
    child = subprocess.Popen(
        [sys.executable, "-m", "receiver", "migrate-ledger", str(path), url, "--json"],
        env=running.environment(), stdout=subprocess.PIPE,
    )  # fmt: skip
    told = b""

    def read() -> None:
        nonlocal told
        assert child.stdout is not None
        told = child.stdout.read()

    with child:
        most = watch_rss(Process(child, "", 0, path), read)
    assert child.returncode == 0
    return json.loads(told), most / 1e6


def _submit(url: str, number: int) -> str:
    answer = httpx.post(f"{url}/v1/jobs", json={**IMAGEN, "prompt": f"waiting {number}"}, timeout=60)
    return str(answer.json()["id"])


def _finish(url: str, job_id: str) -> str:
    return str(httpx.get(f"{url}/v1/jobs/{job_id}", params={"wait": 30}, timeout=60).json()["status"])


if __name__ == "__main__":
    main()
