"""How long a ledger takes to move to PostgreSQL.

A ledger of so many jobs is written (`tests/benchmarks/archive.py`), each with two images and a callback, and
the newest with their events, as many as are kept. A service on it takes some more jobs in and is stopped.
`darkroom migrate-ledger` moves it to a PostgreSQL that writes as durably as usual, and a service there does
those jobs.
"""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

import psycopg

from tests.benchmarks import archive
from tests.benchmarks.figures import Figure
from tests.benchmarks.grounds import Grounds
from tests.support import running
from tests.support.live import IMAGEN
from tests.support.processes import Process, watch_rss

JOBS = 200_000
WAITING = 20
"""Jobs that are queued when the ledger is moved."""

EVENTS = """
    INSERT INTO events (at, job_id, gateway, status)
    SELECT created_at + 1000 * place, id, gateway, status
    FROM (SELECT id, gateway, created_at FROM jobs ORDER BY number DESC LIMIT 100000), (
        SELECT 0 AS place, 'queued' AS status UNION ALL SELECT 1, 'submitting' UNION ALL SELECT 2, 'running'
        UNION ALL SELECT 3, 'ready' UNION ALL SELECT 4, 'archived')"""


def run(grounds: Grounds) -> list[Figure]:
    jobs = 500 if grounds.quick else JOBS
    path = grounds.new_folder("moving") / "ledger.sqlite3"
    began = perf_counter()
    archive.build(path, jobs * archive.IMAGES, callbacks=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(EVENTS)
    built = perf_counter() - began
    bucket = {"DARKROOM_S3__BUCKET": grounds.shared}
    with grounds.serving(f"sqlite:///{path}", "--no-work", **bucket) as process:
        ids = [process.submit(IMAGEN, prompt=f"waiting {number}") for number in range(WAITING)]
        process.terminate()
    url = grounds.new_ledger("postgresql")
    told, memory = _move(path, url)
    rows = sum(table["rows"] for table in told["tables"])
    with closing(psycopg.connect(url)) as moved:
        size = moved.execute("SELECT pg_database_size(current_database())").fetchone()
    began = perf_counter()
    with grounds.serving(url, **bucket) as process:
        ready = process.ready_s
        places = [process.job(job_id, wait=30)["status"] for job_id in ids]
        counts = process.get("/v1/status")
    assert places == ["archived"] * WAITING, places
    assert counts["balanced"], counts
    assert counts["archived"] == jobs + WAITING, counts
    found = [
        ("rows", rows, ""),
        ("to write the ledger", built, "s"),
        ("the SQLite ledger", path.stat().st_size / 1e6, "MB"),
        ("the PostgreSQL ledger", (size or [0])[0] / 1e6, "MB"),
        ("to move it, compared", told["seconds"], "s"),
        ("rows", rows / told["seconds"], "a second"),
        ("memory at most", memory, "MB"),
        ("until a service there was ready", ready, "s"),
        (f"until its {WAITING} waiting jobs were archived", perf_counter() - began, "s"),
    ]
    return [Figure("moving", f"{what}, {jobs:,} jobs", value, unit) for what, value, unit in found]


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
