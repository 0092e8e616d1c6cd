"""Ledgers whose disk is full, that cannot be written, or that somebody else holds."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from time import monotonic

import httpx
import psutil
import pytest

from receiver.sandbox import SandboxConfig
from tests.faults.scenes import Scene, Stage
from tests.faults.world import SANDBOX, World
from dataclasses import replace

PATIENT: SandboxConfig = replace(SANDBOX, retry_delays_s=(0.2, 0.4, 0.8, 1.6, 3.2, 3.2))
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
def no_larger_files(world: World) -> Iterator[None]:
    """The service cannot make any file larger than its ledger is, nor write anywhere behind that."""
    process = psutil.Process(world.child.pid)
    _, most = process.rlimit(resource.RLIMIT_FSIZE)
    process.rlimit(resource.RLIMIT_FSIZE, (0, most))
    try:
        yield
    finally:
        process.rlimit(resource.RLIMIT_FSIZE, (most, most))


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


def refused(scene: Scene) -> list[httpx.Response]:
    """What callbacks were answered that could not be written, by the wire they came over."""
    calls = [call.answered for call in scene.wires.callbacks.calls if call.answered]
    return [answer for answer in calls if answer.status != 200]


def meanwhile(scene: Scene, broken: Callable[[], AbstractContextManager[None]], for_s: float) -> None:
    """Jobs whose callbacks come while the ledger is broken; afterwards all of them are archived."""
    jobs = scene.submit(each=5, fault={"fault": "late", "delay_s": 0.6})
    scene.until(lambda: all(made.callback_url for made in scene.world.sandbox.jobs()))
    with broken():
        began = monotonic()
        scene.until(lambda: len(refused(scene)) >= 5, within_s=20)
        answer = httpx.post(
            f"{scene.world.url}/v1/jobs",
            json={"gateway": "apiframe", "model": "imagen-4-fast", "prompt": "no room"},
            trust_env=False, timeout=20,
        )  # fmt: skip
        print("submit", answer.status_code, answer.headers)
        print("ready", scene.answers("/readyz"), scene.answers("/healthz"))
        while monotonic() - began < for_s:
            threading.Event().wait(0.1)
    for told in refused(scene):
        assert told.status == 503
        assert told.headers["retry-after"]
    scene.archived(jobs, within_s=30)


def test_a_full_disk(stage: Stage) -> None:
    with small_disk(stage) as place, stage.scene("ledger's disk full", sandbox=PATIENT) as scene:
        meanwhile(scene, lambda: full(place), 1.0)


def test_a_file_size_limit(stage: Stage) -> None:
    with stage.scene("ledger cannot grow", sandbox=PATIENT) as scene:
        meanwhile(scene, lambda: no_larger_files(scene.world), 1.0)


def test_a_ledger_that_is_read_only_for_a_while(stage: Stage) -> None:
    with stage.scene("ledger read-only", sandbox=PATIENT) as scene:
        meanwhile(scene, lambda: read_only(scene.world), 1.0)


def test_a_ledger_that_somebody_locks_for_ten_seconds(stage: Stage) -> None:
    with stage.scene("ledger locked for 10 s", sandbox=PATIENT) as scene:
        jobs = scene.submit(each=5, fault={"fault": "late", "delay_s": 0.3})
        scene.until(lambda: len(scene.world.sandbox.jobs()) == 10)
        with locked(scene.world):
            threading.Event().wait(10)
        scene.archived(jobs, within_s=30)
        print([(call.answered and call.answered.status) for call in scene.wires.callbacks.calls])
