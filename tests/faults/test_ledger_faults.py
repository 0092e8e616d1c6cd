"""Ledgers whose disk is full, that cannot be written, or that somebody else holds."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from time import monotonic

import httpx
import psutil
import pytest

from tests.faults import harm
from tests.faults.scenes import Scene, Stage
from tests.faults.wire import Message
from tests.faults.world import SANDBOX, World

pytestmark = pytest.mark.sqlite_file

SOON = replace(SANDBOX, retry_delays_s=(0.3, 0.6, 1.2, 2.4, 4.8, 4.8), callback_timeout_s=30)
"""A gateway that goes on sending its callbacks for longer than the ledger is broken."""
DEAF = {"callback_polls": (60,)}
"""Nothing is found by polling, so what is archived came by a callback."""
MIB = 1024 * 1024


@contextmanager
def small_disk(stage: Stage, size: int = 8 * MIB) -> Iterator[Path]:
    """A file system of a few MiB, of its own."""
    place = stage.folder / "data"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "darkroom-faults", str(place)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def full(place: Path) -> Iterator[None]:
    """No byte more can be written here."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                pass
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def no_writing(world: World) -> Iterator[None]:
    """The service can write no byte to any file: not to the ledger, and not to its log."""
    process = psutil.Process(world.child.pid)
    before = process.rlimit(resource.RLIMIT_FSIZE)
    process.rlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        process.rlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def read_only(world: World) -> Iterator[None]:
    """The ledger's files cannot be changed, by nobody, though they are open for writing."""
    files = [str(path) for path in world.ledger.parent.glob(f"{world.ledger.name}*")]
    done = subprocess.run(["chattr", "+i", *files], capture_output=True, text=True, check=False)
    if done.returncode:
        subprocess.run(["chattr", "-i", *files], capture_output=True, check=False)
        pytest.skip(f"files cannot be made immutable here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *files], check=True)


@contextmanager
def locked(world: World) -> Iterator[None]:
    """Somebody else is writing the ledger all the time."""
    with closing(sqlite3.connect(world.ledger, timeout=20, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def refused(scene: Scene) -> list[Message]:
    """What callbacks were answered that were not taken."""
    told = [call.answered for call in scene.wires.callbacks.calls if call.answered]
    return [answer for answer in told if answer.status != 200]


@contextmanager
def callbacks_meet(scene: Scene, broken: AbstractContextManager[None]) -> Iterator[None]:
    """In the block the ledger is broken, and the callbacks of ten jobs have come; later all is well."""
    gate = threading.Event()
    armed = scene.wires.callbacks.arm(harm.held(gate), times=10)
    jobs = scene.submit(each=5)
    scene.until(lambda: set(scene.places(jobs)) == {"running"})
    armed.wait(10)
    with broken:
        gate.set()
        yield
    scene.archived(jobs)
    for answer in refused(scene):
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
    assert scene.world.get("/v1/status")["found_by_polling"] == 0
    scene.until(lambda: scene.answers("/readyz") == 200)


def nothing_can_be_written(scene: Scene) -> None:
    """Neither callbacks nor submissions are taken, and the service lives."""
    scene.until(lambda: len(refused(scene)) >= 10)
    body = {"gateway": "apiframe", "model": "imagen-4-fast", "prompt": "no room for this one"}
    answer = httpx.post(f"{scene.world.url}/v1/jobs", json=body, trust_env=False, timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (503, "unready"), answer.text
    assert answer.headers["retry-after"]
    assert scene.answers("/healthz") == 200


def test_readiness_tells_that_the_ledger_cannot_be_written(stage: Stage) -> None:
    with stage.scene("no file can be written") as scene:
        scene.archived(scene.submit(each=1))
        with no_writing(scene.world):
            scene.until(lambda: scene.answers("/readyz") == 503)


@contextmanager
def no_room(stage: Stage) -> Iterator[Breaking]:
    with small_disk(stage) as disk:
        yield lambda _world: full(disk)


Breaking = Callable[[World], AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("name", "prepared", "told"),
    [
        ("ledger's disk full", no_room, "The disk of the ledger {} is full."),
        # The same where no file system can be mounted; and here the log cannot be written either.
        ("no file can be written", lambda _stage: nullcontext(no_writing), "The ledger {} cannot be"),
        ("ledger read-only", lambda _stage: nullcontext(read_only), "The ledger {} cannot be"),
    ],
)
def test_a_ledger_that_cannot_be_written(
    stage: Stage, name: str, prepared: Callable[[Stage], AbstractContextManager[Breaking]], told: str
) -> None:
    with prepared(stage) as broken, stage.scene(name, timing=DEAF, sandbox=SOON) as scene:
        with callbacks_meet(scene, broken(scene.world)):
            nothing_can_be_written(scene)
            said = httpx.get(f"{scene.world.url}/readyz", trust_env=False, timeout=40).json()["checks"][
                "ledger"
            ]
            assert told.format(scene.world.ledger.absolute()) in said
        scene.archived(scene.submit(each=1))


def test_a_ledger_that_somebody_locks_for_ten_seconds(stage: Stage) -> None:
    with stage.scene("ledger locked for 10 s", timing=DEAF, sandbox=SOON) as scene:
        with callbacks_meet(scene, locked(scene.world)):
            began = monotonic()
            shown = scene.world.get("/v1/jobs")
            assert len(shown["jobs"]) == 10
            assert monotonic() - began < 3, "reading never waits for whoever writes"
            threading.Event().wait(10)
        scene.archived(scene.submit(each=1))
