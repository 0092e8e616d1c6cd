"""A ledger on PostgreSQL behind PgBouncer, where in transaction mode no session is one's own."""

import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from storage.errors import Misconfigured, Unavailable
from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from storage.ledger.wakeup import Topic
from storage.transfer.transfer import move, open_alone
from tests.jobs.test_postgres_service import KEYS
from tests.ledger.test_wakeup import LONG, hung
from tests.support.ledgers import Clock, add, offer
from tests.support.live import IMAGEN, ULTRA, Start
from tests.support.pgbouncer import MODES, pooling
from tests.support.postgres import Postgres
from tests.support.processes import ROOT

DATABASES = ("server", *MODES)


@pytest.fixture(params=DATABASES)
def reached(request: pytest.FixtureRequest, postgres: Postgres, postgres_url: str) -> Iterator[str]:
    """A ledger on PostgreSQL itself, and behind a pooler in each mode."""
    if request.param == "server":
        yield postgres_url
        return
    with pooling(postgres, pool_mode=request.param, default_pool_size="40") as bouncer:
        yield bouncer.url(postgres_url.rpartition("/")[2])


def test_only_what_needs_it_waits_for_the_disk(reached: str) -> None:
    with closing(Database.open(reached)) as database:
        for durable, waits in ((True, "on"), (False, "off"), (True, "on")):
            with database.write(durable=durable) as connection:
                assert connection.scalar(text("SHOW synchronous_commit")) == waits


def test_statements_reach_no_other_client(postgres: Postgres, postgres_url: str) -> None:
    """What one client prepared on the server, another one has not prepared, or has prepared otherwise."""
    with pooling(postgres, default_pool_size="2") as bouncer, ExitStack() as stack:
        url = bouncer.url(postgres_url.rpartition("/")[2])
        peers = [Ledger(stack.enter_context(closing(Database.open(url))), Clock()) for _ in range(3)]
        for number, peer in enumerate(peers):
            add(peer, f"job-{number}")

        def use(turn: int) -> None:
            peer, job_id = peers[turn % 3], f"job-{turn % 3}"
            peer.add_deliveries([offer(job_id, body=str(turn).encode())])
            assert peer.job(job_id).id == job_id
            assert peer.deliveries(job_id)

        with ThreadPoolExecutor(9) as pool:
            assert list(pool.map(use, range(180))) == [None] * 180
        assert sum(len(peers[0].deliveries(f"job-{number}")) for number in range(3)) == 180


def test_every_transaction_has_its_limits(reached: str) -> None:
    with closing(Database.open(reached)) as database:
        for opened in (database.write, database.read, database.autocommit):
            with opened() as connection:
                assert connection.scalar(text("SHOW lock_timeout")) == "5s", opened
                if opened != database.autocommit:
                    shown = connection.scalar(text("SHOW idle_in_transaction_session_timeout"))
                    assert shown == "1min"
        with database.read() as connection:
            assert connection.scalar(text("SHOW transaction_isolation")) == "repeatable read"
            assert connection.scalar(text("SHOW transaction_read_only")) == "on"


def test_a_pooled_session_is_left_as_it_was(postgres: Postgres, postgres_url: str) -> None:
    with pooling(postgres, default_pool_size="1") as bouncer:
        url = bouncer.url(postgres_url.rpartition("/")[2])
        with closing(Database.open(url)) as database, psycopg.connect(url, autocommit=True) as other:
            with database.write() as connection:
                mine = connection.scalar(text("SELECT pg_backend_pid()"))
            assert other.execute("SELECT pg_backend_pid()").fetchone() == (mine,)
            assert other.execute("SHOW lock_timeout").fetchone() == ("0",)
            assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


@pytest.mark.parametrize("size", ["1", "3"])
@pytest.mark.parametrize("in_turn", ["0", "1"])
@pytest.mark.parametrize("mode", MODES)
def test_it_is_seen_whether_sessions_are_kept(postgres: Postgres, mode: str, size: str, in_turn: str) -> None:
    pool = str(int(size) + 3) if mode == "session" else size
    with (
        pooling(postgres, pool_mode=mode, default_pool_size=pool, server_round_robin=in_turn) as bouncer,
        closing(Database.connect(bouncer.url("postgres"))) as database,
    ):
        with ThreadPoolExecutor(3) as threads:  # so that the pooler has several sessions
            list(threads.map(lambda _: _sleep(database), range(3)))
        database.close()
        with database.own_connection() as connection:
            assert database.keeps_session(connection) == (mode == "session")
        assert database.pooled()


def _sleep(database: Database) -> None:
    with database.read() as connection:
        connection.execute(text("SELECT pg_sleep(0.1)"))


def test_the_server_itself_is_no_pooler(postgres: Postgres) -> None:
    with closing(Database.connect(postgres.url())) as database, database.own_connection() as connection:
        assert database.keeps_session(connection)
        assert not database.pooled()


def test_in_session_mode_processes_hear_each_other(postgres: Postgres, postgres_url: str) -> None:
    with pooling(postgres, pool_mode="session", default_pool_size="20") as bouncer:
        url = bouncer.url(postgres_url.rpartition("/")[2])
        with hung(url) as (one, _), hung(url) as (_two, of_two):
            one.notify(Topic.WORK)
            assert of_two.get(timeout=LONG) == Topic.WORK


def test_in_transaction_mode_it_is_said_and_sent(postgres: Postgres, postgres_url: str) -> None:
    """Nobody listens through it, but who listens past it is woken from there too."""
    with pooling(postgres) as bouncer, hung(postgres_url) as (_, heard):
        with hung(bouncer.url(postgres_url.rpartition("/")[2])) as (one, of_one):
            assert of_one.get(timeout=LONG) == Misconfigured.__name__
            one.notify(Topic.WORK)
            assert heard.get(timeout=LONG) == Topic.WORK
        with psycopg.connect(postgres_url) as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%' AND datname = %s"
            (listening,) = connection.execute(query, [postgres_url.rpartition("/")[2]]).fetchone() or (None,)
        assert listening == 1, "only the one past the pooler"


def test_the_settings_of_the_page_do(start: Start, postgres: Postgres, postgres_url: str) -> None:
    page = (ROOT / "deploy" / "OPERATIONS.md").read_text()
    (block,) = re.findall(r"```ini\n(.*?)```", page, re.DOTALL)
    parser = ConfigParser()
    parser.read_string(block)
    with pooling(postgres, **dict(parser["pgbouncer"])) as bouncer:
        live = start(database_url=bouncer.url(postgres_url.rpartition("/")[2]), secret_keys=KEYS)
        assert live.make(IMAGEN)["status"] == "archived"


@pytest.mark.parametrize("mode", MODES)
def test_a_whole_service_runs_behind_a_pooler(
    start: Start, postgres: Postgres, postgres_url: str, mode: str
) -> None:
    """In transaction mode with fewer sessions than one process may ask for at once."""
    size = "1" if mode == "transaction" else "80"
    with pooling(postgres, pool_mode=mode, default_pool_size=size) as bouncer:
        url = bouncer.url(postgres_url.rpartition("/")[2])
        first = start(database_url=url, secret_keys=KEYS)
        second = start(database_url=url, secret_keys=KEYS)
        jobs = [(first, second)[n % 2].submit(IMAGEN | {"prompt": f"kite {n}"}) for n in range(6)]
        assert {second.finish(job["id"])["status"] for job in jobs} == {"archived"}
        assert first.make(ULTRA)["status"] == "archived"
        assert first.http.get("/v1/outputs", params={"q": "kite"}).json()["outputs"]
        assert first.http.get("/readyz").status_code == 200
        assert first.http.get("/v1/status").json()["balanced"]


def test_a_direct_url_is_listened_on(start: Start, postgres: Postgres, postgres_url: str) -> None:
    with pooling(postgres) as bouncer, hung(postgres_url) as (one, _):
        url = bouncer.url(postgres_url.rpartition("/")[2])
        live = start(database_url=url, database_direct_url=postgres_url, secret_keys=KEYS)
        woken = threading.Event()
        live.service.wakeup.on(Topic.WORK, woken.set)
        one.notify(Topic.WORK)
        assert woken.wait(LONG)


def test_a_ledger_is_not_moved_through_a_pooler(tmp_path: Path, postgres: Postgres) -> None:
    path = tmp_path / "ledger.sqlite3"
    Database.open(f"sqlite:///{path}").close()
    with (
        pooling(postgres) as bouncer,
        closing(open_alone(path)) as source,
        closing(Database.connect(bouncer.url(postgres.create()))) as target,
        pytest.raises(Misconfigured, match="pooler"),
    ):
        move(source, target, clock=lambda: 1, progress=lambda *_: None)


@pytest.mark.parametrize(
    ("settings", "query", "told"),
    [
        ({"pool_mode": "statement"}, "", "statement mode"),
        ({}, "?options=-c%20statement_timeout%3D0", "ignore_startup_parameters"),
        ({"max_client_conn": "1"}, "", "no connection left"),
    ],
)
def test_what_a_pooler_refuses_is_said(
    postgres: Postgres, settings: dict[str, str], query: str, told: str
) -> None:
    with pooling(postgres, **settings) as bouncer, ExitStack() as stack:
        if "max_client_conn" in settings:
            stack.enter_context(psycopg.connect(bouncer.url("postgres")))
        with pytest.raises(Unavailable, match=told):
            Database.open(bouncer.url("postgres") + query)


def test_a_pooler_without_a_server_is_said(postgres_url: str, postgres: Postgres) -> None:
    with (
        pooling(postgres, default_pool_size="1", query_wait_timeout="1") as bouncer,
        closing(Database.open(bouncer.url(postgres_url.rpartition("/")[2]))) as database,
        database.write(),
        pytest.raises(Unavailable, match=r"pooler at 127\.0\.0\.1"),
        database.read(),
    ):
        pass


def test_a_pooler_that_does_not_know_the_user_says_so(postgres: Postgres) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as users:
        users.write('"known" "right"\n')
        users.flush()
        Path(users.name).chmod(0o644)
        with pooling(postgres, auth_type="plain", auth_file=users.name) as bouncer:
            for user in ("known:hunter2", "stranger:hunter2"):
                url = bouncer.url("postgres").replace("postgres@", f"{user}@")
                with pytest.raises(Unavailable, match=r"password of user|has no user") as told:
                    Database.open(url)
                assert "hunter2" not in str(told.value)


def test_tls_that_is_required_or_not_trusted_is_said(postgres: Postgres, postgres_url: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed here")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for name in ("ours", "other"):
            command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
            files = ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"]
            subprocess.run([*command.split(), *files], check=True, capture_output=True)
            Path(f"{folder}/{name}.key").chmod(0o644)
        tls = {"client_tls_key_file": f"{folder}/ours.key", "client_tls_cert_file": f"{folder}/ours.pem"}
        with pooling(postgres, client_tls_sslmode="require", **tls) as bouncer:
            url = bouncer.url(postgres_url.rpartition("/")[2])
            Database.open(f"{url}?sslmode=require").close()
            with pytest.raises(Unavailable, match="requires TLS"):
                Database.open(f"{url}?sslmode=disable")
            with pytest.raises(Unavailable, match="certificate of PostgreSQL at 127"):
                Database.open(f"{url}?sslmode=verify-full&sslrootcert={folder}/other.pem")
