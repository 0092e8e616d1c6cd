"""deploy/OPERATIONS.md, held to the code: what it names exists, and its commands are run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer.main

from receiver.cli.config import settings_table
from receiver.cli.main import app
from receiver.schedule import system_clock
from storage.ledger.database import Database
from storage.ledger.engine import POOL
from storage.ledger.ledger import Ledger
from tests.deploy.watched import OPERATIONS, alerts, anchors, section
from tests.docs.test_readme import ADDRESS, FENCE, need, run
from tests.docs.test_readme import TEXT as README
from tests.support.ledgers import add
from tests.support.live import FAST, IMAGEN, ULTRA, Live, Movable, Start
from tests.support.postgres import Postgres

TEXT = OPERATIONS.read_text(encoding="utf-8")
PROSE = FENCE.sub("", TEXT)
RUNBOOK = TEXT.partition("\n## When an alert fires\n")[2]
TITLES = re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE)
LOOKS = sorted({line for _, body in FENCE.findall(RUNBOOK) for line in body.splitlines()})
"""What an operator is told to look at: none of these commands changes anything."""


def block(mark: str) -> str:
    found = re.search(rf"^<!-- run: {mark} -->\n```bash\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"there is no block {mark!r}"
    return found[1]


def commands() -> Iterator[list[str]]:
    """Every `darkroom ...` on the page, as words."""
    shell = [body for _, body in FENCE.findall(TEXT)]
    for text in [*shell, *re.findall(r"`([^`\n]+)`", PROSE)]:
        for line in re.findall(r"(?:^|[/ ])darkroom ((?:--)?[a-z][^\n|]*)", text, re.MULTILINE):
            yield shlex.split(line)


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    assert [rule["alert"] for rule in alerts()] == TITLES
    assert [title for title in TITLES if len(section(TEXT, title).split()) < 15] == []


def test_runbooks_lead_to_the_section_of_their_alert() -> None:
    for rule in alerts():
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert path == "deploy/OPERATIONS.md"
        assert anchor == rule["alert"].lower()
        assert anchor in anchors(TEXT)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PROSE)
    assert len(links) > 10
    for link in links:
        path, _, anchor = link.partition("#")
        assert not path or (OPERATIONS.parent / path).exists(), link
        assert not anchor or anchor in anchors(TEXT), link
    assert len(set(anchors(TEXT))) == len(anchors(TEXT))


def test_settings_that_it_names_exist() -> None:
    named = set(re.findall(r"DARKROOM_[A-Z0-9_]+", TEXT))
    assert named - {"DARKROOM_URL", "DARKROOM_TOKEN"} <= {row.variable for row in settings_table()}


def test_metrics_and_codes_that_it_names_exist() -> None:
    # Values of labels and codes of errors stand in backticks, as they do in the README.
    for word in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", PROSE):
        assert word in README or word in {"archive_command", "max_connections", "pg_basebackup"}, word


def test_commands_that_it_names_can_be_given() -> None:
    group = typer.main.get_command(app)
    lines = list(commands())
    assert len(lines) > 30
    serve = getattr(group, "commands")["serve"]  # noqa: B009 - typer does not say which it is
    roles = any("--only" in param.opts for param in serve.params)
    for words in lines:
        if words == ["--version"] or ("--only" in words and not roles):
            continue
        # Reads every word as the command would, and runs nothing.
        with group.make_context("darkroom", list(words)) as context:
            name, command, rest = group.resolve_command(context, words)  # type: ignore[attr-defined]
            command.make_context(name, rest, parent=context, resilient_parsing=not rest)


def test_figures_are_those_of_the_readme() -> None:
    figures = re.findall(r"\d[\d.,]* ?(?:GB|MB|MiB|GiB|ms|s|bytes a pixel|jobs)\b", TEXT)
    assert len(figures) > 5
    told = README.replace("bytes for each pixel", "bytes a pixel")
    assert [figure for figure in figures if figure not in told] == []


def test_connections_to_postgresql_are_counted_rightly() -> None:
    assert f"up to {POOL['pool_size'] + POOL['max_overflow']} connections" in TEXT


def shell(live: Live, folder: Path, text: str, **variables: str) -> str:
    """Run lines of the page beside a live service, with `darkroom` as this checkout has it."""
    ours = 'set -eu -o pipefail\ndarkroom() { "$PYTHON" -m receiver "$@"; }\n'
    return run(live, folder, "bash", "-c", ours + text.replace(ADDRESS, live.url), **variables)


@pytest.mark.parametrize("line", LOOKS)
def test_what_to_look_at_can_be_looked_at(live: Live, tmp_path: Path, line: str) -> None:
    need("curl", "--version")
    need("bash", "--version")
    live.make(IMAGEN)
    said = shell(live, tmp_path, line)
    assert said or line.startswith("darkroom "), "a command may find no job"


def paths(text: str, folder: Path) -> str:
    return text.replace("/var/lib/darkroom", str(folder / "data")).replace("/var/backups", str(folder / "b"))


def test_a_sqlite_ledger_is_backed_up_and_restored(start: Start, tmp_path: Path) -> None:
    need("sqlite3", "--version")
    live = start(tmp_path / "data")
    before = live.make(IMAGEN)["id"]
    assert (tmp_path / "data/ledger.sqlite3-wal").stat().st_size > 0, "the file alone would not do"
    assert "ok\n" in shell(live, tmp_path, paths(block("back up"), tmp_path))
    copied = tmp_path / "b/darkroom"
    assert {file.name for file in copied.iterdir()} == {"ledger.sqlite3", "secret-key", "notify-secret"}
    assert [file for file in copied.iterdir() if file.stat().st_mode & 0o077] == []
    after = live.make(IMAGEN)["id"]
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "data", other / "data")  # as a machine that stopped leaves it
    lines = [line for line in block("restore").splitlines() if not line.startswith(("systemctl", "darkroom"))]
    text = "\n".join(lines).replace("/var/lib/darkroom", str(other / "data"))
    shell(live, tmp_path, text.replace("/var/backups", str(tmp_path / "b")))
    again = start(other / "data", s3={"bucket": live.service.settings.s3.bucket})
    assert again.job(before).status == "archived"
    assert again.http.get(f"/v1/jobs/{after}").status_code == 404
    assert "Every accepted job is accounted for" in shell(again, tmp_path, "darkroom status")


def test_a_job_that_was_running_is_archived_again_with_the_same_image(start: Start, tmp_path: Path) -> None:
    need("sqlite3", "--version")
    clock = Movable(system_clock)
    live = start(tmp_path / "data", clock=clock)
    job = live.submit(IMAGEN, fault="no_callback")["id"]
    with live.http.stream("GET", "/v1/events", params={"job": job, "since": 0}) as events:
        assert any('"status": "running"' in line for line in events.iter_lines())
    shell(live, tmp_path, paths(block("back up"), tmp_path))
    clock.forward(60)
    live.finish(job)
    again = start(tmp_path / "b/darkroom", clock=clock, s3={"bucket": live.service.settings.s3.bucket})
    assert again.finish(job)["status"] == "archived"
    assert [one["sha256"] for one in again.outputs(job)] == [one["sha256"] for one in live.outputs(job)]


@pytest.mark.parametrize(("body", "taken"), [(IMAGEN, 0), (ULTRA, 1)], ids=["apiframe", "api-in-one"])
def test_a_job_that_was_queued_is_sent_again(
    start: Start, tmp_path: Path, body: dict[str, Any], taken: int
) -> None:
    need("sqlite3", "--version")
    idle = start(tmp_path / "data", work=False)
    job = idle.submit(body)["id"]
    shell(idle, tmp_path, paths(block("back up"), tmp_path))
    s3 = {"bucket": idle.service.settings.s3.bucket}
    working = start(tmp_path / "data", s3=s3)
    assert working.finish(job)["status"] == "archived"
    before = len(idle.sandbox.jobs())
    again = start(tmp_path / "b/darkroom", s3=s3, timing=replace(FAST, unconfirmed=0.5))
    after = again.finish(job)
    assert len(idle.sandbox.jobs()) == before + taken
    if not taken:
        assert after["error"]["code"] == "submission_unconfirmed"


def test_a_postgresql_ledger_is_dumped_and_restored(
    postgres: Postgres, postgres_url: str, tmp_path: Path
) -> None:
    database = Database.open(postgres_url)
    add(Ledger(database, system_clock), "a-job")
    database.close()
    name = f"restored_{tmp_path.name}".replace("-", "_").lower()[:60]
    restored = postgres.url(name)
    programs = {"PATH": f"{postgres._bin}:/usr/bin:/bin", "SERVER_URL": postgres.url()}
    made = block("restore a dump").replace(" restored\n", f" {name}\n")
    for text, url in ((block("dump"), postgres_url), (made, restored)):
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
