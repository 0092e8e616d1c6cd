"""The simulation agrees with arithmetic wherever that has an answer, and says what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.simulation import HOUR, Outage, images_a_second, recovery
from tests.support.processes import ROOT


def test_without_a_queue_each_writer_is_as_fast_as_it_would_be_alone() -> None:
    assert images_a_second(1, rows=1, think_ms=90, hold_ms=10) == pytest.approx(10, rel=0.1)
    assert images_a_second(8, rows=64, think_ms=99, hold_ms=1) == pytest.approx(80, rel=0.05)


def test_one_row_is_a_wall_that_more_writers_do_not_move_and_more_rows_do() -> None:
    walls = [images_a_second(writers, rows=1, think_ms=100, hold_ms=2) for writers in (100, 400)]
    assert walls == [pytest.approx(500, rel=0.02)] * 2
    assert images_a_second(400, rows=16, think_ms=100, hold_ms=2) > 3 * 500


@pytest.mark.parametrize("capacity", [1.25, 2])
def test_what_nobody_worked_on_is_made_up_for_in_the_time_that_the_spare_capacity_takes(
    capacity: float,
) -> None:
    found = recovery(Outage("workers", HOUR, capacity))
    assert found.backlog == pytest.approx(1_000 * HOUR, rel=0.05)
    assert found.recovered == pytest.approx(HOUR / (capacity - 1), rel=0.1)
    assert found.oldest == pytest.approx(HOUR, rel=0.05)
    assert (found.tries, found.too_old) == (0, 0)


def test_trying_in_vain_makes_nothing_up_and_costs_little_time() -> None:
    found = recovery(Outage("store", HOUR, 1.5))
    assert found.tries > 1
    assert 2 * HOUR * 0.9 < found.recovered < 2 * HOUR * 1.3


def test_what_is_away_for_longer_than_gateways_keep_images_loses_some() -> None:
    assert recovery(Outage("workers", 23 * HOUR, 2), rate=1).too_old == 0
    assert recovery(Outage("workers", 30 * HOUR, 2), rate=1).too_old > 0.05


def test_the_command_tells_its_tables_and_writes_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.simulation", "--quick", "--json", str(tmp_path / "f")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    figures = json.loads((tmp_path / "f").read_text())
    assert figures["hold_ms"]["p95"] >= figures["hold_ms"]["median"] > 0
    assert [len(figures[part]) for part in ("checked", "grown", "recovered")] == [6, 4, 2]
    assert all(int(row["PostgreSQL, a second"]) > 0 for row in figures["checked"])
    assert f"{figures['recovered'][0]['backlog']:,}" in done.stdout
    assert "python -m tests.benchmarks.simulation --quick" in done.stdout
