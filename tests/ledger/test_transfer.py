"""`darkroom migrate-ledger`, as an operator gives it: a service goes on where it was, on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import psycopg
import pytest
from sqlalchemy import select

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxConfig, SandboxServer
from storage.errors import Misconfigured
from storage.ledger.database import Database
from storage.transfer.copy import moved_here
from tests.benchmarks import archive
from tests.support import running
from tests.support.live import IMAGEN, ULTRA
from tests.support.postgres import Postgres
from tests.support.processes import Process, environment, free_port, serving
from tests.support.running import command, data
from tests.support.streams import everything
from tests.support.terminals import in_terminal

PATIENT = SandboxConfig(latency_s=(0.05, 0.1), image_px=64, retry_delays_s=(0.2,) * 600)
"""Callbacks are sent until somebody is there."""
PASSWORD = "pass-of-the-database"


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """A database as an operator creates it: without any table."""
    name = postgres.create()
    yield postgres.url(name).replace("@", f":{PASSWORD}@")
    postgres.drop(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with a ledger of some size, and a key."""
    folder = tmp_path / "darkroom-data"
    folder.mkdir()
    archive.build(folder / "ledger.sqlite3", 4_000)
    (folder / "secret-key").write_text("key-that-was-kept-in-the-folder\n")
    return folder


def reached(process: Process, job_id: str, *places: str) -> None:
    """Wait until a job is there; nobody announces it."""
    deadline = monotonic() + 30
    while (status := process.job(job_id)["status"]) not in places:
        assert monotonic() < deadline, status


@pytest.mark.exhaustive
def test_a_service_goes_on_where_it_was(s3_server: EmbeddedS3, tmp_path: Path, url: str) -> None:
    before, after = free_port(), free_port()
    with SandboxServer(PATIENT) as sandbox:
        # No poll finds what a callback is awaited for.
        variables = environment(s3_server, sandbox, tmp_path, before, DARKROOM_WORKER__FIRST_POLL="600")
        jobs, last = _every_state(variables, f"http://127.0.0.1:{after}", tmp_path)
        steps = data(command("migrate-ledger", variables["DARKROOM_DATA_DIR"], url, "--json"))["next"]
        keys = _told_to_export(steps, "DARKROOM_SECRET_KEYS")
        address = {"DARKROOM_PUBLIC_URL": f"http://127.0.0.1:{after}", "DARKROOM_PORT": str(after)}
        variables |= address | {"DARKROOM_DATABASE_URL": url, "DARKROOM_SECRET_KEYS": keys}
        with serving(variables, tmp_path) as process:
            shown = {name: process.job(job_id, wait=60) for name, job_id in jobs.items()}
            counts = process.get("/v1/status")
            told = asyncio.run(everything(process.url, last))
    ended = {name: job["status"] for name, job in shown.items()}
    assert ended == {name: "failed" if name == "failed" else "archived" for name in jobs}
    assert shown["running"]["found_by"] == "callback", "to a URL that was signed before"
    assert counts["balanced"]
    assert (counts["accepted"], counts["archived"], counts["failed"]) == (len(jobs), len(jobs) - 1, 1)
    made = Counter(report.prompt for report in sandbox.jobs())
    assert made == dict.fromkeys(jobs, 1), "each was sent once"
    ids = [int(one.id.partition("-")[0]) for one in told]
    assert ids == list(range(int(last.partition("-")[0]) + 1, ids[-1] + 1))
    finished = {one.data["job_id"] for one in told if one.data.get("status") == "archived"}
    assert finished == {job_id for name, job_id in jobs.items() if name not in {"failed", "archived", "also"}}


def _every_state(variables: dict[str, str], later: str, folder: Path) -> tuple[dict[str, str], str]:
    """Leave a ledger with jobs everywhere; answers them by what they are, and the id of the last event.

    Callbacks of what is running go to where a service will be `later`.
    """
    jobs = {}
    with serving(variables | {"DARKROOM_PUBLIC_URL": later}, folder) as process:
        jobs["running"] = process.submit(IMAGEN, prompt="running")
        jobs["running there"] = process.submit(ULTRA, prompt="running there")
        jobs["unknown"] = process.submit(
            ULTRA, prompt="unknown", params={"sandbox": {"fault": "lost_answer", "times": 1}}
        )
        reached(process, jobs["running"], "running")
        reached(process, jobs["running there"], "running")
        reached(process, jobs["unknown"], "submitting")
        assert process.terminate()[0] == 0
    with serving(variables, folder) as process:
        jobs["ready"] = process.submit(
            IMAGEN, prompt="ready", params={"sandbox": {"fault": "stalled_image", "times": 1}}
        )
        jobs["archived"] = process.submit(IMAGEN, prompt="archived")
        jobs["also"] = process.submit(ULTRA, prompt="also")
        jobs["failed"] = process.submit(IMAGEN, prompt="failed", params={"sandbox": "failed"})
        for name, place in (("archived", "archived"), ("also", "archived"), ("failed", "failed")):
            reached(process, jobs[name], place)
        reached(process, jobs["ready"], "ready")
        assert process.terminate()[0] == 0
    with serving(variables, folder, "--no-work") as process:
        jobs |= {name: process.submit(IMAGEN, prompt=name) for name in ("queued", "queued too")}
        places = Counter(process.job(job_id)["status"] for job_id in jobs.values())
        last = asyncio.run(everything(process.url, since="0"))[-1].id
    assert places == {"running": 2, "submitting": 1, "ready": 1, "archived": 2, "failed": 1, "queued": 2}
    return jobs, last


def _told_to_export(steps: list[str], variable: str, **variables: str) -> str:
    """The value that a variable gets if one does as one is told."""
    (line,) = (step.partition(": ")[2] for step in steps if f"export {variable}=" in step)
    done = subprocess.run(
        ["sh", "-c", f'{line} && printf %s "${variable}"'],
        env=running.environment(**variables), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_what_is_told(folder: Path, url: str) -> None:
    done = command("migrate-ledger", str(folder), url)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("outputs ")] == ["4,000"]
    assert "every row is identical" in done.stderr
    assert f'DARKROOM_SECRET_KEYS="$(cat {folder}/secret-key)"' in done.stderr
    again = command("migrate-ledger", str(folder / "ledger.sqlite3"), url)
    assert (again.returncode, "Nothing was changed" in again.stderr) == (0, True)
    assert PASSWORD not in done.stdout + done.stderr + again.stdout + again.stderr
    assert "key-that-was-kept" not in done.stdout + done.stderr


def test_settings_say_where_from_and_where_to(folder: Path, url: str) -> None:
    keys = "key-that-was-kept-in-the-folder,and-another-that-is-newer"
    given = {"DARKROOM_DATABASE_URL": url, "DARKROOM_SECRET_KEYS": keys}
    told = data(command("migrate-ledger", "--json", cwd=folder.parent, **given))
    assert told["from"] == "darkroom-data/ledger.sqlite3"
    assert {one["table"]: one["rows"] for one in told["tables"]}["jobs"] == 2_000
    assert told["moved_before"] is None
    assert any(step.startswith("Give it DARKROOM_SECRET_KEYS as it is") for step in told["next"])


def test_a_key_not_given_comes_before_others(folder: Path, url: str) -> None:
    newer = "and-another-that-is-newer"
    asked = ("migrate-ledger", f"sqlite:///{folder}/ledger.sqlite3", url, "--json")
    told = data(command(*asked, DARKROOM_SECRET_KEYS=newer))
    given = _told_to_export(told["next"], "DARKROOM_SECRET_KEYS", DARKROOM_SECRET_KEYS=newer)
    assert given == f"key-that-was-kept-in-the-folder,{newer}"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("source", "target", "code", "why"),
    [
        ("nothing", "{url}", 1, "There is no ledger at nothing"),
        ("darkroom-data", "sqlite:///other", 2, "TO must be the URL of a PostgreSQL database"),
        ("darkroom-data", "postgresql://u:a@b@h/db", 2, "percent-encode"),
        ("darkroom-data", "postgresql://u:pass-of-the-database@127.0.0.1:1/x", 1, "listens at 127.0.0.1:1"),
        ("{url}", "{url}", 2, "pg_dump"),
    ],
)
def test_what_cannot_be_is_told(
    folder: Path, url: str, source: str, target: str, code: int, why: str
) -> None:
    asked = (source.format(url=url), target.format(url=url))
    done = command("migrate-ledger", *asked, cwd=folder.parent)
    assert (done.returncode, why in done.stderr, "Traceback" in done.stderr) == (code, True, False), (
        done.stderr
    )
    assert PASSWORD not in done.stderr


@pytest.mark.exhaustive
def test_a_killed_command_goes_on_where_it_was(folder: Path, postgres_url: str) -> None:
    with closing(psycopg.connect(postgres_url)) as other:
        other.execute("LOCK TABLE outputs IN SHARE MODE")  # so that it stands still there
        child = subprocess.Popen(
            [sys.executable, "-m", "receiver", "migrate-ledger", str(folder), postgres_url],
            env=running.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        with child:
            _until(lambda: _waits(postgres_url), child)
            os.kill(child.pid, signal.SIGKILL)
    with closing(Database.connect(postgres_url)) as database:
        with database.read() as connection:
            place = connection.scalar(select(moved_here.c.place))
        with pytest.raises(Misconfigured, match="is being moved"):
            database.migrate()
    assert place is not None
    assert place["table"] == "terms"
    done = command("migrate-ledger", str(folder), postgres_url, "--json")
    assert done.returncode == 0, done.stderr
    assert {one["table"]: one["rows"] for one in data(done)["tables"]}["outputs"] == 4_000


@pytest.mark.exhaustive
def test_ctrl_c_says_that_it_can_go_on(folder: Path, postgres_url: str) -> None:
    with closing(psycopg.connect(postgres_url)) as other:
        other.execute("LOCK TABLE outputs IN SHARE MODE")
        asked = ("migrate-ledger", str(folder), postgres_url)
        with in_terminal(*asked, folder=folder) as terminal:
            terminal.read(until="Copying terms")
            assert terminal.interrupt() == 130
    assert "run the same command again to continue" in terminal.shown()
    assert command("migrate-ledger", str(folder), postgres_url).returncode == 0


def _waits(url: str) -> bool:
    with closing(psycopg.connect(url)) as connection:
        found = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    return found is not None and found[0] > 0


def _until(reached: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    deadline = monotonic() + 60
    while not reached():
        assert child.poll() is None, child.stderr and child.stderr.read()
        assert monotonic() < deadline
