"""The commands of deploy/OPERATIONS.md, run."""

import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from receiver.schedule import system_clock
from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from tests.deploy.watched import OPERATIONS
from tests.docs.test_pages import FENCE
from tests.docs.test_readme import bash, block, need
from tests.support.ledgers import add
from tests.support.live import FAST, IMAGEN, ULTRA, Live, Movable, Start
from tests.support.postgres import Postgres
from tests.support.running import command

TEXT = OPERATIONS.read_text(encoding="utf-8")
RUNBOOK = TEXT.partition("\n## When an alert fires\n")[2]
LOOKS = sorted({line for _, body in FENCE.findall(RUNBOOK) for line in body.splitlines()})
"""What an operator is told to look at: none of these commands changes anything."""


@pytest.fixture(scope="module")
def used(live: Live) -> Live:
    live.make(IMAGEN)
    return live


@pytest.mark.parametrize("line", [line for line in LOOKS if not line.startswith("darkroom ")])
def test_what_to_look_at_can_be_looked_at(used: Live, tmp_path: Path, line: str) -> None:
    need("curl", "--version")
    assert bash(used, tmp_path, line)


@pytest.mark.parametrize("line", [line for line in LOOKS if line.startswith("darkroom ")])
def test_commands_to_look_with_can_be_given(used: Live, tmp_path: Path, line: str) -> None:
    done = command(*shlex.split(line)[1:], cwd=tmp_path, DARKROOM_URL=used.url)
    assert done.returncode == 0, done.stderr  # it may find no job


def paths(text: str, folder: Path) -> str:
    return text.replace("/var/lib/darkroom", str(folder / "data")).replace("/var/backups", str(folder / "b"))


def test_a_sqlite_ledger_is_backed_up_and_restored(start: Start, tmp_path: Path) -> None:
    need("sqlite3", "--version")
    live = start(tmp_path / "data")
    before = live.make(IMAGEN)["id"]
    assert (tmp_path / "data/ledger.sqlite3-wal").stat().st_size > 0, "the file alone would not do"
    assert "ok\n" in bash(live, tmp_path, paths(block("run: back up", TEXT), tmp_path))
    copied = tmp_path / "b/darkroom"
    assert {file.name for file in copied.iterdir()} == {"ledger.sqlite3", "secret-key", "notify-secret"}
    assert [file for file in copied.iterdir() if file.stat().st_mode & 0o077] == []
    after = live.make(IMAGEN)["id"]
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "data", other / "data")  # as a machine that stopped leaves it
    lines = [
        line
        for line in block("run: restore", TEXT).splitlines()
        if not line.startswith(("systemctl", "darkroom"))
    ]
    text = "\n".join(lines).replace("/var/lib/darkroom", str(other / "data"))
    bash(live, tmp_path, text.replace("/var/backups", str(tmp_path / "b")))
    again = start(other / "data", s3={"bucket": live.settings.s3.bucket}, ledger={"accept_incomplete": True})
    assert again.job(before).status == "archived"
    assert again.http.get(f"/v1/jobs/{after}").status_code == 404
    assert "Every accepted job is accounted for" in bash(again, tmp_path, "darkroom status")


def test_a_running_job_is_archived_again_the_same(start: Start, tmp_path: Path) -> None:
    need("sqlite3", "--version")
    clock = Movable(system_clock)
    live = start(tmp_path / "data", clock=clock)
    job = live.submit(IMAGEN, fault="no_callback")["id"]
    with live.http.stream("GET", "/v1/events", params={"job": job, "since": 0}) as events:
        assert any('"status":"running"' in line for line in events.iter_lines())
    bash(live, tmp_path, paths(block("run: back up", TEXT), tmp_path))
    clock.forward(60)
    live.finish(job)
    again = start(tmp_path / "b/darkroom", clock=clock, s3={"bucket": live.settings.s3.bucket})
    assert again.finish(job)["status"] == "archived"
    assert [one["sha256"] for one in again.outputs(job)] == [one["sha256"] for one in live.outputs(job)]


@pytest.mark.parametrize(("body", "taken"), [(IMAGEN, 0), (ULTRA, 1)], ids=["apiframe", "api-in-one"])
def test_a_queued_job_is_sent_again(start: Start, tmp_path: Path, body: dict[str, Any], taken: int) -> None:
    need("sqlite3", "--version")
    idle = start(tmp_path / "data", work=False)
    job = idle.submit(body)["id"]
    bash(idle, tmp_path, paths(block("run: back up", TEXT), tmp_path))
    s3 = {"bucket": idle.settings.s3.bucket}
    working = start(tmp_path / "data", s3=s3)
    assert working.finish(job)["status"] == "archived"
    before = len(idle.sandbox.jobs())
    again = start(
        tmp_path / "b/darkroom",
        s3=s3,
        timing=replace(FAST, unconfirmed=0.5),
        ledger={"accept_incomplete": True},
    )
    after = again.finish(job)
    assert len(idle.sandbox.jobs()) == before + taken
    if not taken:
        assert after["error"]["code"] == "submission_unconfirmed"


def test_a_postgresql_ledger_is_restored(postgres: Postgres, postgres_url: str, tmp_path: Path) -> None:
    database = Database.open(postgres_url)
    add(Ledger(database, system_clock), "a-job")
    database.close()
    name = f"restored_{tmp_path.name}".replace("-", "_").lower()[:60]
    restored = postgres.url(name)
    programs = {"PATH": f"{postgres._bin}:/usr/bin:/bin", "SERVER_URL": postgres.url()}
    made = block("run: restore a dump", TEXT).replace(" restored\n", f" {name}\n")
    for text, url in ((block("run: dump", TEXT), postgres_url), (made, restored)):
        done = subprocess.run(
            ["bash", "-euc", text], cwd=tmp_path, env=programs | {"DARKROOM_DATABASE_URL": url},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    try:
        database = Database.open(restored)
        assert Ledger(database, system_clock).job("a-job").status == "queued"
        database.close()
    finally:
        postgres.drop(name)
