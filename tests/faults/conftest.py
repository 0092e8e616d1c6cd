"""Fixtures of the fault suite; scenes are played on both databases, but for those about SQLite's file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from tests.faults.forks import Forks
from tests.faults.scenes import Report, Stage

DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.exhaustive)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "stage" in metafunc.fixturenames and not list(metafunc.definition.iter_markers("sqlite_file")):
        metafunc.parametrize("stage", DATABASES, indirect=True)


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
