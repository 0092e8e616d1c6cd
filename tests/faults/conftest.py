"""What all scenarios of the fault suite share.

Set DARKROOM_FAULTS_TABLE to a path that ends in .json or .md, and the table is written there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.embedded import EmbeddedS3
from tests.faults.forks import Forks
from tests.faults.scenes import Stage
from tests.faults.table import Table

TABLE = pytest.StashKey[Table]()


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Where services are forked from."""
    with Forks() as forks:
        yield forks


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Table:
    """Where every scenario reports what it ended with."""
    return request.config.stash.setdefault(TABLE, Table())


@pytest.fixture
def stage(s3_server: EmbeddedS3, forks: Forks, table: Table, tmp_path: Path) -> Stage:
    """Where a scenario is played."""
    return Stage(s3_server, forks, table, tmp_path)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, and write it where that was asked for."""
    table = config.stash.get(TABLE, None)
    if table is None or not table.rows:
        return
    terminalreporter.section("faults")
    for line in table.lines():
        terminalreporter.write_line(line)
    if path := os.environ.get("DARKROOM_FAULTS_TABLE"):
        table.write(Path(path))
