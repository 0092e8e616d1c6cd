"""Tests that share two processors run side by side; those marked `alone`, which measure time, do not.

Each test holds a place in the room while it runs, and one that is `alone` holds all of it. Whoever wants in
waits at the door first, so that a test which needs the whole room is not passed by for ever.
"""

import fcntl
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest


@contextmanager
def _held(lock: Path, operation: int) -> Iterator[None]:
    with lock.open("a") as file:
        fcntl.flock(file, operation)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a child that still has the file open does not keep the lock


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Wait until this test may run beside those that run now, and hold its place."""
    with ExitStack() as room:
        with _held(folder / "door.lock", fcntl.LOCK_EX):
            room.enter_context(_held(folder / "room.lock", fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if not hasattr(item.config, "workerinput"):
        return (yield)
    base: Path = item.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    with turn(base.parent, alone=item.get_closest_marker("alone") is not None):
        return (yield)
