"""`darkroom serve` answers, and worker processes of its own do the work."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic

import httpx
import psutil
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client import Metric as Family

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.jobs.worker_processes import WakePipe
from receiver.sandbox import SandboxServer
from receiver.telemetry.metrics import Metrics, added
from storage.ledger.database import Database
from storage.ledger.wakeup import Topic, WakeupChannel
from tests.jobs.test_postgres_service import KEYS
from tests.support.live import IMAGEN
from tests.support.processes import Process, environment, free_port, serving
from tests.telemetry.test_metrics import value

LONG = 20.0


@contextmanager
def running(
    s3: EmbeddedS3, sandbox: SandboxServer, folder: Path, processes: int, **more: str
) -> Iterator[Process]:
    variables = environment(
        s3,
        sandbox,
        folder,
        free_port(),
        DARKROOM_WORKER__PROCESSES=str(processes),
        TMPDIR=str(folder),
        **more,
    )
    with serving(variables, folder) as process:
        yield process


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.exhaustive)])
def ledger(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "sqlite":
        return {}
    return {"DARKROOM_DATABASE_URL": request.getfixturevalue("postgres_url"), "DARKROOM_SECRET_KEYS": KEYS[0]}


def silent(error: Exception) -> None:
    raise error


def made(process: Process) -> str:
    """Submit a job and wait for it: its status."""
    with httpx.Client(base_url=process.url, trust_env=False, timeout=40) as http:
        job = http.post("/v1/jobs", json=IMAGEN).json()
        return str(http.get(f"/v1/jobs/{job['id']}", params={"wait": 30}).json()["status"])


def workers(process: Process) -> list[psutil.Process]:
    return psutil.Process(process.child.pid).children(recursive=True)


def shown(process: Process) -> bytes:
    return httpx.get(f"{process.url}/metrics", trust_env=False).content


def until(true: Callable[[], bool]) -> None:
    """Wait for what another process does, of which nobody tells."""
    deadline = monotonic() + LONG
    while not true():
        assert monotonic() < deadline
        threading.Event().wait(0.05)


def test_processes_of_their_own_work_and_are_seen_as_one(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path, ledger: dict[str, str]
) -> None:
    with running(s3_server, sandbox, tmp_path, 2, **ledger) as process:
        assert [made(process) for _ in range(3)] == ["archived"] * 3
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


def test_they_are_given_what_the_command_line_says(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """An open API may not be exposed, and this one is not."""
    variables = environment(
        s3_server, sandbox, tmp_path, free_port(), DARKROOM_WORKER__PROCESSES="1", DARKROOM_HOST="0.0.0.0"
    )
    with serving(variables, tmp_path, "--host", "127.0.0.1") as process:
        assert made(process) == "archived"
        assert "a worker process ended" not in process.log.read_text()


def test_threads_work_if_no_process_is_to(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    with running(s3_server, sandbox, tmp_path, 0) as process:
        assert made(process) == "archived"
        assert workers(process) == []
        assert value(shown(process), "darkroom_worker_slots") == 8


def test_a_worker_that_dies_is_started_again_and_what_it_counted_stays(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    with running(s3_server, sandbox, tmp_path, 1) as process:
        assert made(process) == "archived"
        (first,) = workers(process)
        assert value(shown(process), "darkroom_worker_slots") == 8
        first.kill()
        until(lambda: value(shown(process), "darkroom_worker_slots") == 0)
        until(lambda: first not in workers(process) and len(workers(process)) == 1)
        assert value(shown(process), "darkroom_moves_total", gateway="apiframe", status="archived") == 1
        assert list(tmp_path.glob(f"darkroom-workers-*/*_{first.pid}.db")) == []
        assert made(process) == "archived"
        pages = [shown(process) for _ in range(3)]  # and looking counts nothing
        for page in pages:
            assert value(page, "darkroom_moves_total", gateway="apiframe", status="archived") == 2
            assert value(page, "darkroom_step_seconds_count", status="ready") == 2
        until(lambda: "a worker process ended and is started again" in process.log.read_text())


def test_they_end_with_the_process_that_serves(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    with running(s3_server, sandbox, tmp_path, 2) as process:
        assert made(process) == "archived"
        until(lambda: value(shown(process), "darkroom_worker_slots") == 16)
        found = workers(process)
        code, took_s = process.terminate()
        assert (code, took_s < 10) == (0, True)
        assert psutil.wait_procs(found, 0.1)[1] == []
        said = process.log.read_text()
        assert said.count('"event": "worker stopped"') == 2
        assert "started again" not in said
    assert list(tmp_path.glob("darkroom-workers-*")) == []


@pytest.mark.exhaustive
def test_they_end_also_if_it_is_killed(s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path) -> None:
    with running(s3_server, sandbox, tmp_path, 2) as process:
        assert made(process) == "archived"
        found = workers(process)
        process.child.kill()
        assert psutil.wait_procs(found, LONG)[1] == []
    assert list(tmp_path.glob("darkroom-workers-*")) == []


def test_on_sqlite_both_sides_ring_for_each_other(tmp_path: Path) -> None:
    """Otherwise each would look once a second."""
    with closing(Database.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")) as database:
        bells = [WakeupChannel(database, silent) for _ in range(2)]
        heard = [{ring: threading.Event() for ring in Topic} for _ in bells]
        ends = socket.socketpair()
        lines = [WakePipe(end, bell) for end, bell in zip(ends, bells, strict=True)]
        threads = [threading.Thread(target=line.listen) for line in lines]
        for bell, line, events, thread in zip(bells, lines, heard, threads, strict=True):
            bell.forward(line.ring)
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


def test_who_does_not_listen_holds_nobody_up(tmp_path: Path) -> None:
    with closing(Database.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")) as database:
        bell = WakeupChannel(database, silent)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            bell.forward(WakePipe(ours, bell).ring)
            for _ in range(300_000):
                bell.notify(Topic.EVENTS)
            assert theirs.recv(1) == b"e"


def test_what_others_counted_is_added() -> None:
    metrics, others = Metrics(["apiframe"]), CollectorRegistry()
    theirs = Counter("darkroom_moves_total", "-", ["gateway", "status"], registry=others)
    unknown = theirs.labels("unknown", "ready")
    steps = Histogram("darkroom_step_seconds", "-", ["status"], buckets=(0.05, 1), registry=others)
    metrics.add(others.collect)
    metrics.add(lambda: [Family("of_somebody_else", "-", "counter")])
    metrics.count("darkroom_moves_total", 2, gateway="apiframe", status="ready")
    theirs.labels("apiframe", "ready").inc(3)
    unknown.inc()
    steps.labels("ready").observe(0.01)
    for _ in range(2):  # and not to what was counted here
        page = metrics.page()
        assert value(page, "darkroom_moves_total", gateway="apiframe", status="ready") == 5
        assert value(page, "darkroom_moves_total", gateway="unknown", status="ready") == 1
        assert value(page, "darkroom_step_seconds_count", status="ready") == 1
    assert page.count(b"# TYPE darkroom_moves_total counter") == 1
    assert b"of_somebody_else" not in page


def test_what_was_added_up_can_be_added_to_again() -> None:
    """What a worker that is gone had counted must not grow whenever somebody looks."""
    counted = [Family("jobs", "-", "counter") for _ in range(2)]
    for family, number in zip(counted, (2, 3), strict=True):
        family.add_sample("jobs_total", {"gateway": "apiframe"}, number)
    sums = [added(counted)[0].samples[0].value for _ in range(2)]
    assert sums == [5, 5]
    assert [family.samples[0].value for family in counted] == [2, 3]
