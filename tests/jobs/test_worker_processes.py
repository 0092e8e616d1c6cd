"""`darkroom serve` answers, and worker processes of its own do the work."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.jobs.worker_processes import WakePipe
from receiver.sandbox import SandboxServer
from receiver.telemetry.metrics import Metrics
from receiver.telemetry.multiprocess import FOLDER, count_as, shared_counts
from storage.ledger.database import Database
from storage.ledger.wakeup import Topic, WakeupChannel
from tests.jobs.test_postgres_service import KEYS
from tests.support.live import IMAGEN
from tests.support.processes import ROOT, Process, environment, free_port, serving, until
from tests.telemetry.test_metrics import value

LONG = 20.0


@contextmanager
def running(
    s3: EmbeddedS3, sandbox: SandboxServer, folder: Path, processes: int, **more: str
) -> Iterator[Process]:
    settings = {"DARKROOM_WORKER__PROCESSES": str(processes), "TMPDIR": str(folder), **more}
    variables = environment(s3, sandbox, folder, free_port(), **settings)
    with serving(variables, folder) as process:
        yield process


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.exhaustive)])
def ledger(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "sqlite":
        return {}
    return {"DARKROOM_DATABASE_URL": request.getfixturevalue("postgres_url"), "DARKROOM_SECRET_KEYS": KEYS[0]}


def silent(error: Exception) -> None:
    raise error


def workers(process: Process) -> list[psutil.Process]:
    """Its children that work; another one tracks resources for multiprocessing, once one was replaced."""
    children = psutil.Process(process.child.pid).children()
    return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]


def shown(process: Process) -> bytes:
    return httpx.get(f"{process.url}/metrics", trust_env=False).content


@pytest.mark.exhaustive
def test_worker_processes_are_seen_as_one(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path, ledger: dict[str, str]
) -> None:
    with running(s3_server, sandbox, tmp_path, 2, **ledger) as process:
        assert [process.make(IMAGEN)["status"] for _ in range(3)] == ["archived"] * 3
        page = shown(process)
        assert value(page, "darkroom_moves_total", gateway="apiframe", status="archived") == 3
        assert value(page, "darkroom_step_seconds_count", status="ready") == 3
        assert value(page, "darkroom_step_seconds_bucket", status="ready", le="+Inf") == 3
        assert value(page, "darkroom_callbacks_total", gateway="apiframe", outcome="accepted") == 3
        until(lambda: value(shown(process), "darkroom_worker_slots") == 16)
        until(lambda: value(shown(process), "darkroom_worker_jobs") == 0)
        assert len(workers(process)) == 2
        started = [line for line in process.log.read_text().splitlines() if '"event": "started"' in line]
        assert ['"work": true' in line for line in started].count(True) == 2
        assert ['"work": false' in line for line in started].count(True) == 1


@pytest.mark.exhaustive
def test_they_are_given_what_the_command_line_says(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """An open API may not be exposed, and this one is not."""
    variables = environment(
        s3_server, sandbox, tmp_path, free_port(), DARKROOM_WORKER__PROCESSES="1", DARKROOM_HOST="0.0.0.0"
    )
    with serving(variables, tmp_path, "--host", "127.0.0.1") as process:
        assert process.make(IMAGEN)["status"] == "archived"
        assert "a worker process ended" not in process.log.read_text()


def test_a_dead_worker_is_replaced_and_its_counts_stay(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    with running(s3_server, sandbox, tmp_path, 1) as process:
        assert process.make(IMAGEN)["status"] == "archived"
        (first,) = workers(process)
        assert first.nice() == 19
        assert value(shown(process), "darkroom_worker_slots") == 8
        first.kill()
        until(lambda: value(shown(process), "darkroom_worker_slots") == 0)
        until(lambda: first not in workers(process) and len(workers(process)) == 1)
        assert value(shown(process), "darkroom_moves_total", gateway="apiframe", status="archived") == 1
        assert len(list(tmp_path.glob("darkroom-metrics-*/*.db"))) == 6
        assert process.make(IMAGEN)["status"] == "archived"
        pages = [shown(process) for _ in range(3)]  # and looking counts nothing
        for page in pages:
            assert value(page, "darkroom_moves_total", gateway="apiframe", status="archived") == 2
            assert value(page, "darkroom_step_seconds_count", status="ready") == 2
        until(lambda: "a worker process ended and is started again" in process.log.read_text())


def test_they_end_with_the_process_that_serves(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    with running(s3_server, sandbox, tmp_path, 2) as process:
        assert process.make(IMAGEN)["status"] == "archived"
        until(lambda: value(shown(process), "darkroom_worker_slots") == 16)
        found = workers(process)
        code, took_s = process.terminate()
        assert (code, took_s < 10) == (0, True)
        assert psutil.wait_procs(found, 0.1)[1] == []
        said = process.log.read_text()
        assert said.count('"event": "worker stopped"') == 2
        assert "started again" not in said
    assert list(tmp_path.glob("darkroom-metrics-*")) == []


@pytest.mark.exhaustive
def test_they_end_also_if_it_is_killed(s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path) -> None:
    with running(s3_server, sandbox, tmp_path, 2) as process:
        assert process.make(IMAGEN)["status"] == "archived"
        found = workers(process)
        process.child.kill()
        assert psutil.wait_procs(found, LONG)[1] == []
    assert list(tmp_path.glob("darkroom-metrics-*")) == []


def test_on_sqlite_both_sides_ring_for_each_other(tmp_path: Path) -> None:
    """Otherwise each would look once a second."""
    with closing(Database.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")) as database:
        bells = [WakeupChannel(database, silent) for _ in range(2)]
        heard = [{ring: threading.Event() for ring in Topic} for _ in bells]
        ends = socket.socketpair()
        lines = [WakePipe(end, bell) for end, bell in zip(ends, bells, strict=True)]
        threads = [threading.Thread(target=line.listen) for line in lines]
        for bell, line, events, thread in zip(bells, lines, heard, threads, strict=True):
            bell.forward(line.notify)
            for ring, event in events.items():
                bell.on(ring, event.set)
            thread.start()
        bells[0].notify(Topic.WORK)
        assert heard[1][Topic.WORK].wait(LONG)
        bells[1].notify(Topic.EVENTS)
        assert heard[0][Topic.EVENTS].wait(LONG)
        assert not heard[1][Topic.EVENTS].is_set()
        assert not heard[0][Topic.WORK].is_set()
        for end in ends:
            end.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(LONG)
            assert not thread.is_alive()
        bells[0].notify(Topic.WORK)  # nobody is there any more, and nobody minds
        for end in ends:
            end.close()


@pytest.mark.exhaustive
def test_who_does_not_listen_holds_nobody_up(tmp_path: Path) -> None:
    with closing(Database.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")) as database:
        bell = WakeupChannel(database, silent)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            bell.forward(WakePipe(ours, bell).notify)
            for _ in range(300_000):
                bell.notify(Topic.EVENTS)
            assert theirs.recv(1) == b"e"


def counted(page: bytes) -> tuple[float | None, ...]:
    moves = value(page, "darkroom_moves_total", gateway="apiframe", status="ready")
    steps = value(page, "darkroom_step_seconds_bucket", status="ready", le="+Inf")
    return moves, steps, value(page, "darkroom_worker_jobs")


class TestSharedCounts:
    def test_adds_processes_and_goes_on_after_restart(self) -> None:
        with shared_counts():
            folder = Path(os.environ[FOLDER])
            served = Metrics(["apiframe"])
            served.count("darkroom_moves_total", 2, gateway="apiframe", status="ready")
            for _ in range(2):  # the second time, as a worker that died with a job in hand and is back
                count_as("worker-0")
                worker = Metrics(["apiframe"])
                worker.count("darkroom_moves_total", 3, gateway="apiframe", status="ready")
                worker.observe("darkroom_step_seconds", 0.01, status="ready")
                worker.change("darkroom_worker_jobs", 1)
            assert [counted(served.page()) for _ in range(2)] == [(8, 2, 1)] * 2
            assert served.page().count(b"# TYPE darkroom_moves_total counter") == 1
            assert len(list(folder.iterdir())) == 6
        assert not folder.exists()
        assert counted(Metrics(["apiframe"]).page()) == (0, None, 0), "and each counts for itself again"

    def test_counts_alone_without_folder(self, tmp_path: Path) -> None:
        program = (
            "from receiver.telemetry.multiprocess import shared_counts\n"
            "from receiver.telemetry.metrics import Metrics\n"
            "with shared_counts():\n"
            "    metrics = Metrics([])\n"
            "    metrics.change('darkroom_worker_jobs', 4)\n"
            "    print(metrics.page().decode())\n"
        )
        full = f"import tempfile; tempfile.tempdir = {str(tmp_path / 'nowhere')!r}\n"
        done = subprocess.run(
            [sys.executable, "-c", full + program], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "\ndarkroom_worker_jobs 4.0\n" in done.stdout
