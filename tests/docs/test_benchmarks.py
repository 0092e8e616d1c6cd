"""The benchmarks run and measure the same ledger on both databases; none asserts how fast anything is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.figures import Figure, Target, table
from tests.support.processes import ROOT


def test_a_figure_is_compared_and_held_to_its_target() -> None:
    figures = [
        Figure("latency", "p50", 61.25, "ms", "a bare copy", 12.5, Target(most=60, of="figure")),
        Figure("callbacks", "rate", 1_000, "x", "a bare route", 2_000, Target(least=0.5)),
        Figure("growth", "a claim", 1, "ms", target=Target(least=0.5)),
    ]
    assert [figure.met for figure in figures] == [False, True, False]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(figures).splitlines()[2:4]]
    assert rows == [
        ["latency: p50", "61.2 ms", "12.5 ms, a bare copy", "4.90", "at most 60", "no"],
        ["callbacks: rate", "1,000 x", "2,000 x, a bare route", "0.50", "at least 0.5 times", "yes"],
    ]  # fmt: skip


def test_the_runner_measures_and_writes_what_it_found(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    command = [sys.executable, "-m", "tests.benchmarks", "latency", "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found["command"] == f"python -m tests.benchmarks latency --quick --json {file}"
    assert found["machine"]["cores"] >= 1
    assert [figure["what"] for figure in found["figures"]] == [
        f"callback to archived, p{percent}, {kind}"
        for kind in ("sqlite", "postgresql")
        for percent in (50, 99)
    ]
    for figure in found["figures"]:
        assert figure["ratio"] == pytest.approx(figure["measured"] / figure["compared"])
        assert f"latency: {figure['what']}" in done.stdout
    assert str(found["machine"]["cpu"]) in done.stdout
