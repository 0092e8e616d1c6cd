"""`darkroom serve --only callbacks --processes 2`: one port, several processes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.processes import Process, free_port, serving, until
from tests.support.running import command
from tests.telemetry.test_metrics import value

KEY = {"DARKROOM_GATEWAYS__APIFRAME__API_KEY": "afk_example"}
TWO = ("--only", "callbacks", "--processes", "2")


@contextmanager
def two(folder: Path) -> Iterator[Process]:
    given = {name: text for name, text in os.environ.items() if not name.startswith(("DARKROOM_", "AWS_"))}
    ours = {"DARKROOM_PORT": str(free_port()), "TMPDIR": str(folder), "DARKROOM_LOG_FORMAT": "json"}
    with serving(given | KEY | ours, folder, *TWO) as process:
        yield process


def serving_processes(process: Process) -> set[psutil.Process]:
    """Those that answer; another one tracks resources for multiprocessing, once one was replaced."""
    children = psutil.Process(process.child.pid).children()
    return {child for child in children if "resource_tracker" not in " ".join(child.cmdline())}


def refused(process: Process) -> None:
    """Send a callback with a token that nobody made."""
    answer = httpx.post(f"{process.url}/callbacks/apiframe/none", content=b"{}", trust_env=False, timeout=20)
    assert answer.status_code == 401


def counted(process: Process) -> float | None:
    page = httpx.get(f"{process.url}/metrics", trust_env=False, timeout=20).content
    return value(page, "darkroom_callbacks_total", gateway="apiframe", outcome="bad_token")


def test_each_answers_what_they_count_is_one_and_one_that_dies_is_replaced(tmp_path: Path) -> None:
    with two(tmp_path) as process:
        until(lambda: process.log.read_text().count('"listening"') == 2)
        first, second = serving_processes(process)
        for other in (first, second):
            other.suspend()
            refused(process)
            assert counted(process) == (1 if other is first else 2)
            other.resume()
        first.kill()
        refused(process)
        until(lambda: "a serving process ended and is started again" in process.log.read_text())
        until(lambda: process.log.read_text().count('"listening"') == 3)
        (new,) = serving_processes(process) - {first, second}
        second.suspend()
        refused(process)
        assert counted(process) == 4
        second.resume()
        code, took_s = process.terminate()
        assert (code, took_s < 10) == (0, True)
        assert psutil.wait_procs([second, new], 0.1)[1] == []
        assert "Traceback" not in process.log.read_text()
    assert list(tmp_path.glob("darkroom-metrics-*")) == []


def test_they_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    with two(tmp_path) as process:
        found = serving_processes(process)
        process.child.kill()
        assert psutil.wait_procs(found, 15)[1] == []
    assert list(tmp_path.glob("darkroom-metrics-*")) == []


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (TWO, 1, "is not a SQLite database"),
        (("--processes", "2"), 2, "--processes is for --only callbacks or --only api"),
    ],
)
def test_what_can_never_work_ends_all(
    arguments: tuple[str, ...], code: int, told: str, tmp_path: Path
) -> None:
    ledger = tmp_path / "darkroom-data" / "ledger.sqlite3"
    ledger.parent.mkdir()
    ledger.write_text("no database at all, " * 100)
    more = {"DARKROOM_PORT": str(free_port()), "DARKROOM_S3__BUCKET": "pictures"}
    done = command("serve", *arguments, cwd=tmp_path, **more, **KEY)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert told in " ".join(done.stderr.split())
