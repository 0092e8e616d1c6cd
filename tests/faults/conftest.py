"""Fixtures of the fault suite, and which database each scene has.

The ledger's own tests hold both databases to the same. So a scene whose fault is elsewhere is played on one
of them, in turns; those marked `both_databases` on each; and those about SQLite's file on that."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from tests.faults.forks import Forks
from tests.faults.scenes import Report, Stage

DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.exhaustive)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marks = list(metafunc.definition.iter_markers())
    marked = {mark.name for mark in marks}
    given = any("stage" in mark.args[0] for mark in marks if mark.name == "parametrize")
    if "stage" in metafunc.fixturenames and not given and "sqlite_file" not in marked:
        databases = DATABASES if "both_databases" in marked else [_in_turn(metafunc, marked)]
        metafunc.parametrize("stage", databases, indirect=True)


def _in_turn(metafunc: pytest.Metafunc, marked: set[str]) -> object:
    """Return the database of one scene: SQLite for every other one of a file and for the default run."""
    names = [name for name in vars(metafunc.module) if name.startswith("test_")]
    return DATABASES[0 if "smoke" in marked else names.index(metafunc.function.__name__) % 2]


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@pytest.fixture
def stage(
    request: pytest.FixtureRequest, s3_server: EmbeddedS3, forks: Forks, report: Report, tmp_path: Path
) -> Stage:
    on_postgres = getattr(request, "param", "sqlite") == "postgresql"
    ledger = request.getfixturevalue("postgres_url") if on_postgres else None
    return Stage(s3_server, forks, tmp_path, report, ledger)
