"""What an operator reads when the ledger's database cannot be used: what it is, where, and what to change."""

import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from storage.errors import Misconfigured, Unavailable
from storage.ledger import messages
from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from storage.ledger.url import LedgerUrl
from tests.jobs.test_postgres_service import KEYS
from tests.support.ledgers import Clock, add
from tests.support.live import Start
from tests.support.postgres import Postgres, serving
from tests.support.processes import environment, free_port

FOREIGN = re.compile(r"psycopg|sqlalchemy|sqlite3\.|\wError\b|FATAL|hunter2|://u", re.IGNORECASE)
"""Words of a library, and what is secret."""
RULES = (
    "host all known 127.0.0.1/32 scram-sha-256",
    "host all nobody 127.0.0.1/32 scram-sha-256",
    "host all barred 127.0.0.1/32 reject",
    "hostssl all secured 127.0.0.1/32 trust",
    "hostnossl all secured 127.0.0.1/32 reject",
)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Postgres]:
    """A server that asks for passwords, and has a database `here`."""
    with serving() as server:
        for name in ("known", "barred", "secured", "guest", "reader"):
            server.tell(f"CREATE ROLE {name} LOGIN PASSWORD 'right'")
        server.tell("CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
        server.tell("CREATE DATABASE here")
        server.tell("CREATE DATABASE closed")
        server.tell("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
        server.tell("ALTER ROLE reader SET default_transaction_read_only = on")
        Database.open(server.url("here")).close()
        server.allow(*RULES)
        yield server


def told_by(url: str) -> str:
    """What opening a ledger says, which is in plain words."""
    with pytest.raises((Misconfigured, Unavailable)) as error:
        Database.open(url)
    told = str(error.value)
    assert not FOREIGN.search(told), told
    return told


@pytest.mark.parametrize(
    ("user", "database", "told"),
    [
        ("known:hunter2", "here", "does not accept the password of user known"),
        ("known", "here", "asks for a password of user known"),
        ("nobody:hunter2", "here", "does not accept the password of user nobody"),
        ("stranger", "here", "has no user stranger"),
        ("known:right", "elsewhere", "no database elsewhere"),
        ("known:right", "closed", "user known may not connect to the database closed"),
        ("barred:right", "here", "does not let user barred into here"),
        ("secured", "here", "without TLS. If it has TLS, add ?sslmode=require"),
        ("crowded", "here", "no connection left"),
        ("postgres", "here?sslmode=require", "offers no TLS"),
        ("postgres", "here?sslmode=perhaps", "sslmode in DARKROOM_DATABASE_URL"),
        ("guest:right", "postgres", "user of DARKROOM_DATABASE_URL must own the database"),
    ],
)
def test_what_the_server_refuses_is_said(guarded: Postgres, user: str, database: str, told: str) -> None:
    said = told_by(f"postgres://{user}@127.0.0.1:{guarded.port}/{database}")
    assert told in said
    assert f"127.0.0.1:{guarded.port}" in said


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    port = free_port()
    assert f"No PostgreSQL listens at 127.0.0.1:{port}" in told_by(f"postgres://u:hunter2@127.0.0.1:{port}/d")
    assert f"No PostgreSQL listens at {tmp_path}" in told_by(f"postgres://u:hunter2@/d?host={tmp_path}")
    assert "no host nowhere.invalid" in told_by("postgres://u:hunter2@nowhere.invalid/d")


def test_a_host_that_does_not_answer_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        told = told_by(f"postgres://u:hunter2@127.0.0.1:{port}/d?connect_timeout=2")
    assert f"127.0.0.1:{port} cannot be reached" in told


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("ALTER TABLE jobs RENAME TO others", "lacks tables of the ledger"),
        ("ALTER DATABASE {name} SET default_transaction_read_only = on", "can only be read"),
        (
            "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {worker}",
            "_worker may not use",
        ),
    ],
)
def test_what_is_taken_away_later_is_said(
    start: Start, postgres: Postgres, postgres_url: str, damage: str, told: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    worker = f"{name}_worker"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for statement in (
            f"CREATE ROLE {worker} LOGIN",
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {worker}",
            f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {worker}",
        ):
            connection.execute(statement.encode())
        url = postgres_url.replace("postgres@", f"{worker}@")
        live = start(database_url=url, secret_keys=KEYS, work=False)
        assert live.http.get("/readyz").status_code == 200
        connection.execute(damage.format(name=name, worker=worker).encode())
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [worker]
        )
    live.service.health.forget()
    checks = live.http.get("/readyz").json()["checks"]
    assert told in f"{checks['ledger']} {checks['results']}"
    assert not FOREIGN.search(str(checks)), checks


def test_a_server_that_goes_away_is_said(start: Start) -> None:
    with serving() as server:
        live = start(database_url=server.url(server.create()), secret_keys=KEYS, work=False)
        server.stop()
        live.service.health.forget()
        said = live.http.get("/readyz").json()["checks"]["ledger"]
        server.start()
    assert f"No PostgreSQL listens at 127.0.0.1:{server.port}" in said


def test_a_lock_that_is_held_too_long_is_said(postgres_url: str) -> None:
    with closing(Database.open(postgres_url)) as database, psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Unavailable, match="held a lock for too long"):
            add(Ledger(database, Clock()))
        with pytest.raises(Unavailable, match="held a lock for too long"):
            Ledger(database, Clock()).job("job-1")


def test_a_file_that_cannot_be_a_ledger_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert f"{tmp_path}/folder cannot be opened: it is a folder" in told_by(f"sqlite:///{tmp_path}/folder")
    (tmp_path / "text").write_text("no database at all, " * 100)
    assert f"{tmp_path}/text is not a SQLite database" in told_by(f"sqlite:///{tmp_path}/text")
    assert f"{tmp_path}/text/l.db cannot be made" in told_by(f"sqlite:///{tmp_path}/text/l.db")
    assert "/proc/nowhere/l.db cannot be made" in told_by("sqlite:////proc/nowhere/l.db")
    assert "/proc/l.db cannot be opened" in told_by("sqlite:////proc/l.db")


def test_a_damaged_ledger_is_said(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    Database.open(f"sqlite:///{path}").close()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 60_000)
    assert f"The ledger {path} is damaged" in told_by(f"sqlite:///{path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_ledger_without_the_right_to_write_is_said(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    Database.open(f"sqlite:///{path}").close()
    path.chmod(0o400)
    assert f"The ledger {path} cannot be written" in told_by(f"sqlite:///{path}")


def test_every_reason_of_sqlite_names_the_file(tmp_path: Path) -> None:
    place = LedgerUrl.of_file(tmp_path / "l.db")
    for name in (
        "READONLY",
        "FULL",
        "IOERR",
        "PERM",
        "BUSY",
        "LOCKED",
        "CORRUPT",
        "NOTADB",
        "CANTOPEN",
        "ERROR",
    ):
        error = sqlite3.OperationalError("of the library")
        error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{name}")
        told = messages.unavailable(error, place)
        assert str(tmp_path / "l.db") in told
        assert "of the library" not in told


def test_psycopg_that_is_missing_is_said() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from storage.ledger.database import Database\n"
        "Database.open('postgres://u:hunter2@h/d')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "psycopg, which is not installed here: pip install" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", ["serve", "work", "serve --only callbacks"])
def test_what_serves_says_it_and_waits(
    guarded: Postgres, s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path, command: str
) -> None:
    ours = refused_by(guarded, s3_server, sandbox, tmp_path)
    out, all_of_it = subprocess.PIPE, subprocess.STDOUT
    words = [sys.executable, "-m", "receiver", *command.split()]
    with subprocess.Popen(words, env=ours, cwd=tmp_path, stdout=out, stderr=all_of_it, text=True) as process:
        assert process.stdout is not None
        told = next(line for line in process.stdout if "waiting for the ledger" in line)
        process.terminate()
        told += process.stdout.read()
        assert process.wait(20) == 0, told
    assert f"127.0.0.1:{guarded.port} does not accept the password of user known" in told
    assert not FOREIGN.search(told), told


def refused_by(
    server: Postgres, s3_server: EmbeddedS3, sandbox: SandboxServer, folder: Path
) -> dict[str, str]:
    """The variables of a service whose password the server does not accept."""
    return environment(
        *(s3_server, sandbox, folder, free_port()),
        DARKROOM_DATABASE_URL=f"postgres://known:hunter2@127.0.0.1:{server.port}/here",
        DARKROOM_SECRET_KEYS=KEYS[0],
        DARKROOM_DATA_DIR=str(folder),
    )


def test_a_command_that_ends_says_it(
    guarded: Postgres, s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    Database.open(f"sqlite:///{tmp_path}/ledger.sqlite3").close()
    ours = refused_by(guarded, s3_server, sandbox, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "receiver", "migrate-ledger"],
        env=ours, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert f"127.0.0.1:{guarded.port} does not accept the password of user known" in told
    assert not FOREIGN.search(told), told


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_connections_that_the_server_ended_are_made_anew(database: Database, database_url: str) -> None:
    """Of the four that wait in the pool none is good any more, and nobody is told."""
    with ExitStack() as opened:
        for _ in range(4):
            opened.enter_context(database.read()).scalar(text("SELECT 1"))
    with psycopg.connect(database_url, autocommit=True) as other:
        ended = other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database() AND application_name = 'darkroom'"
        ).fetchall()
    assert len(ended) >= 4
    with ExitStack() as opened:
        for way in (database.write, database.read, database.autocommit, database.read):
            assert opened.enter_context(way()).scalar(text("SELECT 1")) == 1
