"""Fixtures of the fault suite, and the table of its verdicts.

Scenes are played on SQLite and on PostgreSQL, but for those that are about SQLite's file.
Set DARKROOM_FAULTS_TABLE to a path that ends in .json or .md, and the table is written there.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from tests.faults.forks import Forks
from tests.faults.judge import Verdict
from tests.faults.scenes import Report, Stage
from tests.faults.table import Row, Table

DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.exhaustive)]
FAULT = "fault"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "stage" in metafunc.fixturenames and not list(metafunc.definition.iter_markers("sqlite_file")):
        metafunc.parametrize("stage", DATABASES, indirect=True)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Add a verdict to the table, and fail if something was lost, doubled or wrong."""

    def add(fault: str, verdict: Verdict) -> None:
        request.node.user_properties.append((FAULT, asdict(Row.of(fault, verdict))))
        assert verdict.problems == (), str(verdict)

    return add


@pytest.fixture
def stage(
    request: pytest.FixtureRequest, s3_server: EmbeddedS3, forks: Forks, report: Report, tmp_path: Path
) -> Stage:
    on_postgres = getattr(request, "param", "sqlite") == "postgresql"
    ledger = request.getfixturevalue("postgres_url") if on_postgres else None
    return Stage(s3_server, forks, tmp_path, report, ledger)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, and write it where DARKROOM_FAULTS_TABLE says."""
    table = Table()
    for outcome in ("passed", "failed"):
        for one in terminalreporter.stats.get(outcome, ()):
            if one.when == "call":
                table.add(Row(**row) for name, row in one.user_properties if name == FAULT)
    if not table.rows:
        return
    terminalreporter.section("faults")
    for line in table.lines():
        terminalreporter.write_line(line)
    if path := os.environ.get("DARKROOM_FAULTS_TABLE"):
        table.write(Path(path))
