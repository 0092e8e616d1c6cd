"""Tests that are marked `alone` have the machine for themselves."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

from tests.support.turns import turn

LONG = 20.0


def entering(
    folder: Path, *, alone: bool
) -> tuple[queue.SimpleQueue[str], threading.Event, threading.Thread]:
    """A test that wants its turn: what it says, how to end it, and its thread."""
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    end = threading.Event()

    def run() -> None:
        with turn(folder, alone=alone):
            said.put("in")
            assert end.wait(LONG)

    thread = threading.Thread(target=run)
    thread.start()
    return said, end, thread


def test_usual_tests_run_side_by_side_and_one_alone_waits_for_both(tmp_path: Path) -> None:
    usual = [entering(tmp_path, alone=False) for _ in range(2)]
    for said, _, _ in usual:
        assert said.get(timeout=LONG) == "in"
    alone, end_alone, last = entering(tmp_path, alone=True)
    for _, end, thread in usual:
        assert alone.empty()
        end.set()
        thread.join()
    assert alone.get(timeout=LONG) == "in"
    late, end_late, later = entering(tmp_path, alone=False)
    later.join(0.2)
    assert late.empty(), "nothing runs beside it"
    end_alone.set()
    assert late.get(timeout=LONG) == "in"
    end_late.set()
    last.join()
    later.join()
