"""What all scenarios of the fault suite share.

Each scene is played on SQLite and on PostgreSQL, but for those that are about SQLite's file.
Set DARKROOM_FAULTS_TABLE to a path that ends in .json or .md, and the table is written there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import cast

import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from tests.faults.forks import Forks
from tests.faults.scenes import Stage
from tests.faults.table import Table
from tests.support.postgres import Postgres

TABLE = pytest.StashKey[Table]()
AT_A_TIME = 4
DATABASES = ("sqlite", "postgresql")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Play each scene on both databases."""
    if "stage" in metafunc.fixturenames and not list(metafunc.definition.iter_markers("sqlite_file")):
        metafunc.parametrize("stage", DATABASES, indirect=True)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Where services are forked from."""
    with Forks() as forks:
        yield forks


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Table:
    """Where every scenario reports what it ended with."""
    return request.config.stash.setdefault(TABLE, Table())


@pytest.fixture(scope="module")
def scenes(
    request: pytest.FixtureRequest,
    s3_server: EmbeddedS3,
    forks: Forks,
    tmp_path_factory: pytest.TempPathFactory,
) -> Mapping[str, tuple[Stage, Future[None]]]:
    """The module's tests that want a stage, played ahead and several at a time: most of each is waiting."""
    plays = []
    for item in request.session.items:
        if not isinstance(item, pytest.Function) or item.module is not request.module:
            continue
        if "stage" in item.fixturenames:
            params = dict(item.callspec.params) if hasattr(item, "callspec") else {}
            ledger = _new_ledger(request) if params.pop("stage", "sqlite") == "postgresql" else None
            stage = Stage(s3_server, forks, tmp_path_factory.mktemp("scene"), ledger)
            plays.append((item, stage, params))
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        played = {
            item.nodeid: (stage, pool.submit(item.function, stage=stage, **params))
            for item, stage, params in plays
        }
        # pytest must not go on meanwhile: after each test it takes PYTEST_CURRENT_TEST out of the
        # environment, and httpx or boto3, which go through that for proxies, would stumble in a scene.
        try:
            wait(future for _, future in played.values())
        finally:
            pool.shutdown(cancel_futures=True)
    return played


def _new_ledger(request: pytest.FixtureRequest) -> str:
    server: Postgres = request.getfixturevalue("postgres")
    return server.url(server.create(request.getfixturevalue("postgres_template")))


@pytest.fixture
def stage(request: pytest.FixtureRequest, scenes: Mapping[str, tuple[Stage, Future[None]]]) -> Stage:
    """Where a scenario is played."""
    return scenes[request.node.nodeid][0]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Take what a test that was played ahead ended with, instead of calling it."""
    if "stage" not in pyfuncitem.fixturenames:
        return None
    scenes = cast("Mapping[str, tuple[Stage, Future[None]]]", pyfuncitem.funcargs["scenes"])
    stage, future = scenes[pyfuncitem.nodeid]
    future.result()
    table = pyfuncitem.config.stash.setdefault(TABLE, Table())
    for fault, verdict in stage.verdicts:
        table.add(fault, verdict)
    return True


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
