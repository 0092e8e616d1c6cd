"""States that cannot be: a ledger that is empty or old while its bucket is full, and workers that all die."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psutil
import pytest

from tests.faults.judge import judge
from tests.faults.scenes import Scene, Stage
from tests.faults.world import SANDBOX, TERMINAL, WITHIN_S, World
from tests.support.postgres import Postgres
from tests.support.processes import serving

LATE = replace(SANDBOX, retry_delays_s=(0.5, 1, 2, 4, 8, 8, 8), callback_timeout_s=30)
"""A gateway that goes on sending its callbacks for longer than the ledger is away."""
DEAF = {"callback_polls": (60,)}
"""Nothing is found by polling, so what is archived came by a callback."""


@contextmanager
def another_ledger(scene: Scene, postgres: Postgres | None, backup: Path | None) -> Iterator[None]:
    """In the block the service runs on an empty ledger, or on a backup; afterwards on its own again."""
    world = scene.world
    world.kill()
    own = dict(world.variables)
    if postgres is not None:
        world.variables["DARKROOM_DATABASE_URL"] = postgres.url(postgres.create())
    else:
        folder = world.folder / "other"
        folder.mkdir()
        for key in (world.folder / "data").glob("*-key"):
            (folder / key.name).write_bytes(key.read_bytes())
            (folder / key.name).chmod(0o600)
        if backup is not None:
            backup.rename(folder / "ledger.sqlite3")
        world.variables["DARKROOM_DATA_DIR"] = str(folder)
    world.start()
    yield
    world.kill()
    world.variables.clear()
    world.variables.update(own)
    world.start()


def nothing_is_submitted(scene: Scene) -> None:
    body = {"gateway": "apiframe", "model": "imagen-4-fast", "prompt": "charged before"}
    answer = httpx.post(f"{scene.world.url}/v1/jobs", json=body, trust_env=False, timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (503, "ledger_incomplete"), answer.text
    assert "DARKROOM_LEDGER__ACCEPT_INCOMPLETE" in answer.json()["detail"]
    assert scene.answers("/readyz") == 503
    assert "DARKROOM_LEDGER__ACCEPT_INCOMPLETE" in scene.world.get("/v1/status")["problems"]["history"]


@pytest.mark.both_databases
def test_an_empty_ledger_over_a_full_bucket(stage: Stage, request: pytest.FixtureRequest) -> None:
    """Callbacks that come meanwhile are not lost: their gateway comes again."""
    postgres = request.getfixturevalue("postgres") if stage.ledger else None
    with stage.scene("empty ledger, full bucket", sandbox=LATE, timing=DEAF) as scene:
        scene.archived(scene.submit(each=2))
        jobs = scene.submit(each=2, fault={"fault": "late", "delay_s": 3})
        scene.until(lambda: set(scene.places(jobs)) == {"running"})
        with another_ledger(scene, postgres, None):
            nothing_is_submitted(scene)
            scene.until(lambda: len(refused(scene)) >= len(jobs))
        scene.archived(jobs)
        assert {answer.status for answer in refused(scene)} == {503}
        assert scene.world.get("/v1/status")["found_by_polling"] == 0
        scene.archived(scene.submit(each=1))


def refused(scene: Scene) -> list[Any]:
    """What callbacks were answered that were not recorded."""
    told = [call.answered for call in scene.wires.callbacks.calls if call.answered]
    return [answer for answer in told if answer.status != 200]


@pytest.mark.sqlite_file
def test_a_ledger_from_before_the_newest_record(stage: Stage) -> None:
    """What waits in the backup was sent since: it is neither sent nor charged again."""
    with stage.scene("ledger older than its bucket", sandbox=LATE) as scene:
        scene.archived(scene.submit(each=1))
        for gateway in scene.wires.gateways.values():
            gateway.down()
        jobs = scene.submit(each=1)
        backup = stage.folder / "backup.sqlite3"
        # Not at the moment at which one of them is being sent again.
        scene.until(lambda: waiting_in(copied(scene.world.ledger, backup)) == len(jobs))
        for gateway in scene.wires.gateways.values():
            gateway.up()
        scene.archived(jobs)
        scene.archived(scene.submit(each=1))
        with another_ledger(scene, None, backup):
            nothing_is_submitted(scene)
            scene.until(lambda: len(errors(scene)) == len(jobs))
        assert [scene.sent_to(job) for job in jobs] == [1] * len(jobs)


def copied(ledger: Path, backup: Path) -> Path:
    backup.unlink(missing_ok=True)
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("VACUUM INTO ?", [str(backup)])
    return backup


def waiting_in(ledger: Path) -> int:
    with closing(sqlite3.connect(ledger)) as connection:
        return int(connection.execute("SELECT count(*) FROM jobs WHERE status = 'queued'").fetchone()[0])


def errors(scene: Scene) -> list[str]:
    found = [job["error"] for job in scene.world.get("/v1/jobs", status="queued")["jobs"]]
    return [error["code"] for error in found if error and error["code"] == "ledger_incomplete"]


def workers(service: psutil.Process) -> list[psutil.Process]:
    return [one for one in service.children() if "resource_tracker" not in " ".join(one.cmdline())]


class Killer:
    """Kills every worker process of a service as soon as it is there, until the end of the block."""

    def __init__(self, pid: int) -> None:
        self.kills = 0
        self._service = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.05):
            with suppress(psutil.NoSuchProcess):
                for one in workers(self._service):
                    one.kill()
                    self.kills += 1


def wait_until_ready(world: World, *, ready: bool) -> dict[str, Any]:
    deadline = monotonic() + WITHIN_S
    while True:
        answer = httpx.get(f"{world.url}/readyz", trust_env=False, timeout=10)
        if answer.is_success == ready:
            found: dict[str, Any] = answer.json()
            return found
        assert monotonic() < deadline, answer.text
        threading.Event().wait(0.2)


@pytest.mark.both_databases
def test_workers_that_end_again_and_again(stage: Stage) -> None:
    """Callbacks and submissions are taken, `/readyz` says why nothing goes on, and later all is archived."""
    more = {"DARKROOM_WORKER__PROCESSES": "1", "DARKROOM_READY__NO_WORKER": "15"}
    with stage.world(**more) as here, serving(here.variables, stage.folder) as process:
        here.up.set()
        wait_until_ready(here, ready=True)
        with Killer(process.child.pid) as killer:
            jobs = [here.submit("apiframe"), here.submit("api-in-one")]
            told = wait_until_ready(here, ready=False)
            assert [name for name, said in told["checks"].items() if said != "ok"] == ["workers"]
            assert "No worker has been seen" in told["checks"]["workers"]
            assert set(here.get("/v1/status")["problems"]) == {"workers"}
            assert killer.kills > 1
            assert httpx.get(f"{here.url}/healthz", trust_env=False).is_success
        for job in jobs:
            shown = {"status": ""}
            while shown["status"] not in TERMINAL:
                shown = here.get(f"/v1/jobs/{job.job_id}", wait=30)
            assert shown["status"] == "archived"
        wait_until_ready(here, ready=True)
        stage.report("worker killed again and again", judge(here))
