import json
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import typer.main
from sqlalchemy import text
from starlette.applications import Starlette

from receiver.cli.commands import app
from receiver.cli.config import settings_table
from receiver.cli.main import plainly_given
from receiver.cli.run import listening
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.http.server import Connections, listen, serve
from receiver.settings import load
from storage.ledger.database import Database
from tests.support.processes import free_port
from tests.support.running import command, data, environment, in_process


def test_config_shows_settings_and_masks_secrets(tmp_path: Path) -> None:
    variables = {"DARKROOM_S3__BUCKET": "pictures", "DARKROOM_S3__SECRET_KEY": "very-secret-key"}
    done = command("config", cwd=tmp_path, **variables)
    assert done.returncode == 0
    assert "DARKROOM_S3__BUCKET = pictures" in done.stdout
    assert "DARKROOM_S3__SECRET_KEY = ********" in done.stdout
    assert "DARKROOM_GATEWAYS__APIFRAME__API_KEY" in done.stderr
    as_json = command("config", "--json", cwd=tmp_path, **variables)
    assert "very-secret-key" not in done.stdout + done.stderr + as_json.stdout
    rows = {row["variable"]: row for row in data(as_json)}
    assert rows["DARKROOM_PORT"]["default"] == "8321"


def test_every_setting_has_a_sentence_of_help() -> None:
    rows = settings_table()
    assert len(rows) > 30
    assert [row.variable for row in rows if not row.help.endswith((".", "`"))] == []
    secrets = {row.variable.rpartition("__")[2].removeprefix("DARKROOM_") for row in rows if row.secret}
    assert {"API_KEY", "SECRET_KEY", "ACCESS_KEY", "API_TOKENS", "SECRET_KEYS", "DATABASE_URL"} <= secrets


@pytest.mark.parametrize(
    ("name", "variables", "told"),
    [
        ("serve", {}, "DARKROOM_S3__BUCKET"),
        ("work", {}, "DARKROOM_S3__BUCKET"),
        ("serve", {"DARKROOM_PORT": "http"}, "DARKROOM_PORT"),
    ],
)
def test_wrong_settings_are_told_plainly(
    name: str, variables: dict[str, str], told: str, tmp_path: Path
) -> None:
    # They are found before anything is changed in the process.
    done = in_process(name, cwd=tmp_path, **variables)
    assert (done.returncode, told in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing is begun"


GIVEN = [
    "serve",
    "serve --host 0.0.0.0 --port 0 --no-work",
    "serve --port=8080 --only=callbacks --no-work --work",
    "serve --only api --host=::1 --processes 64",
    "work",
    "work --port 65535",
]
JUDGED = [
    "", "--version", "jobs", "serve --help", "serve -h", "serve --port", "serve --port x", "work --only api",
    "serve --port=-1", "serve --port 65536", "serve --only=all", "serve --work=yes", "serve --hos a",
    "serve host", "serve -- --host a", "work --host a", "serve --processes 0", "serve --processes 65",
]  # fmt: skip


@pytest.mark.parametrize("line", GIVEN)
def test_what_is_plainly_given_is_what_typer_makes_of_it(line: str) -> None:
    """They start without Typer, and must not differ from what its help says."""
    name, values = plainly_given(line.split()) or ("", {})
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    with command.make_context(name, line.split()[1:]) as context:
        assert {**{one.name: one.get_default(context) for one in command.params}, **values} == context.params


@pytest.mark.parametrize("line", JUDGED)
def test_anything_else_is_for_typer_to_judge(line: str) -> None:
    assert plainly_given(line.split()) is None


@pytest.mark.exhaustive("work --port 0")
@pytest.mark.parametrize("arguments", ["serve --port 0", "work --port 0"])
def test_a_store_that_is_away_is_told_and_waited_for(
    s3_server: EmbeddedS3, tmp_path: Path, arguments: str
) -> None:
    away = serving(s3_server) | {"DARKROOM_S3__ENDPOINT": "http://127.0.0.1:9"}
    with started(*arguments.split(), cwd=tmp_path, **away) as (process, lines):
        said = [json.loads(next(line for line in lines if event in line)) for event in ("waiting", '"listen')]
        assert "DARKROOM_S3__ENDPOINT" in said[0]["why"]
        with httpx.Client(base_url=said[1]["url"], trust_env=False) as http:
            assert http.get("/healthz").status_code == 200
            ready = http.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["ledger"]) == (503, "ok")
        assert "DARKROOM_S3__ENDPOINT" in ready.json()["checks"]["archive"]
        stopped(process, lines)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ("serve", "newer"),
        pytest.param("serve --only callbacks", "damaged", marks=pytest.mark.exhaustive),
        pytest.param("work", "damaged", marks=pytest.mark.exhaustive),
        pytest.param("work --port 0", "newer", marks=pytest.mark.exhaustive),
    ],
)
def test_a_ledger_that_can_never_be_used_ends_it(
    s3_server: EmbeddedS3, tmp_path: Path, arguments: str, wrong: str
) -> None:
    """No waiting makes it another one."""
    file = tmp_path / "darkroom-data" / "ledger.sqlite3"
    with closing(Database.open(f"sqlite:///{file}")) as database, database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    if wrong == "damaged":
        file.write_text("no database at all, " * 100)
    variables = serving(s3_server) | {"DARKROOM_PORT": str(free_port())}
    done = command(*arguments.split(), cwd=tmp_path, **variables)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    said = {"newer": "newer Darkroom (schema 9999", "damaged": "is not a SQLite database"}[wrong]
    assert said in " ".join(done.stderr.split())


@contextmanager
def started(
    *arguments: str, cwd: Path, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], Iterator[str]]]:
    """A command that runs on, and the lines that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "receiver", *arguments], env=environment(**variables), cwd=cwd,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        try:
            yield process, iter(process.stdout)
        finally:
            process.kill()


def stopped(process: subprocess.Popen[str], lines: Iterator[str]) -> None:
    """Stop a command; it must end as it should."""
    process.terminate()
    rest = "".join(lines)
    assert process.wait(timeout=30) == 0, rest


def serving(s3: EmbeddedS3) -> dict[str, str]:
    """Variables for a service that has nothing but an S3 server."""
    return {
        "DARKROOM_S3__BUCKET": f"serve-{uuid.uuid4().hex}",
        "DARKROOM_S3__CREATE_BUCKET": "true",
        "DARKROOM_S3__ENDPOINT": s3.endpoint,
        "DARKROOM_S3__REGION": "us-east-1",
        "DARKROOM_S3__ACCESS_KEY": s3.access_key,
        "DARKROOM_S3__SECRET_KEY": s3.secret_key,
        "DARKROOM_GATEWAYS__APIFRAME__API_KEY": "afk_sandbox",
        "DARKROOM_GATEWAYS__APIFRAME__BASE_URL": "http://127.0.0.1:9",
        "DARKROOM_LOG_FORMAT": "json",
    }


def test_a_mistyped_setting_is_logged_at_start(s3_server: EmbeddedS3, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("me:admin:0123456789abcdef\n")
    mistyped = {"DARKROOM_NOTIFY_URL": "http://127.0.0.1:9", "DARKROOM_PUBLIC_URL": "http://127.0.0.1:9"}
    port = str(free_port())
    variables = (
        serving(s3_server) | mistyped | {"DARKROOM_API_TOKENS_FILE": str(token), "DARKROOM_PORT": port}
    )
    with started("serve", cwd=tmp_path, **variables) as (process, lines):
        found: dict[str, str] = {}
        for line in lines:
            said = json.loads(line)
            if said["event"] == "listening":
                break
            found[said["event"]] = found.get(said["event"], "") + said.get("why", "")
        answer = httpx.get(f"{said['url']}/v1/jobs", trust_env=False)
        assert (answer.status_code, said["url"]) == (401, f"http://127.0.0.1:{port}")
        assert "did you mean DARKROOM_NOTIFY__URL?" in found["check the settings"]
        assert f"listens on port {port}" in found["check the settings"]
        stopped(process, lines)
    shown = command("config", cwd=tmp_path, **variables).stderr
    assert "did you mean DARKROOM_NOTIFY__URL?" in shown
    assert f"listens on port {port}" in shown


def test_a_taken_port_is_told_with_its_setting(s3_server: EmbeddedS3, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = command("serve", "--port", str(port), cwd=tmp_path, **serving(s3_server))
    assert (done.returncode, "Traceback" in done.stderr, "Errno" in done.stderr) == (1, False, False)
    assert f"Port {port} on 127.0.0.1 is already in use by another program" in done.stderr
    assert "DARKROOM_PORT" in done.stderr


def test_a_port_taken_while_starting_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        # Both bind it; whoever listens first has it.
        with listening(load(port=port)) as mine, listen("127.0.0.1", port) as other:
            other.listen()
            serve(Unwaited(Connections(10, 1)), Starlette(), mine)

    port = free_port()
    with pytest.raises(SystemExit):
        run()
    assert f"Port {port} on 127.0.0.1 is already in use by another program" in capsys.readouterr().err


@dataclass(frozen=True)
class Unwaited:
    """A service for which no request waits."""

    connections: Connections

    def at_once(self) -> None: ...

    def cancel_waiters(self) -> None: ...

    def limit_waiters(self, connections: int) -> None: ...

    def on_failure(self, failed: Callable[[], None]) -> None: ...

    def raise_failure(self) -> None: ...

    def asgi(self, *, work: bool) -> Starlette:
        raise NotImplementedError


def test_the_demo_says_which_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = command("demo", "--port", str(port), cwd=tmp_path)
    assert (done.returncode, "Errno" in done.stderr) == (1, False)
    assert f"Port {port} on 127.0.0.1 is already in use by another program" in done.stderr


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive)]
)
def test_serve_stops_while_somebody_waits(
    s3_server: EmbeddedS3, tmp_path: Path, number: signal.Signals
) -> None:
    with started("serve", "--port", "0", cwd=tmp_path, **serving(s3_server)) as (process, lines):
        url = next(json.loads(line)["url"] for line in lines if '"listening"' in line)
        body = {"gateway": "apiframe", "model": "imagen-4-fast", "prompt": "never taken"}
        job = httpx.post(f"{url}/v1/jobs", json=body, trust_env=False).json()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=60) as held:
            held.sendall(f"GET /v1/jobs/{job['id']}?wait=60 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            # Once this one is answered, the one before it is being held.
            httpx.get(f"{url}/healthz", trust_env=False)
            process.send_signal(number)
            answer = held.makefile("rb").readline()
        rest = "".join(lines)
        assert process.wait(timeout=30) == 0, rest
    assert answer == b"HTTP/1.1 200 OK\r\n"
    assert '"stopped"' in rest
    assert "Traceback" not in rest


def test_a_port_that_is_taken_is_told(s3_server: EmbeddedS3, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = command("serve", "--port", port, cwd=tmp_path, **serving(s3_server))
    assert (done.returncode, "Errno" in done.stderr) == (1, False)
    assert f"Port {port} on 127.0.0.1 is already in use" in done.stderr
    assert "DARKROOM_PORT" in done.stderr


def test_a_worker_can_be_watched_and_nothing_else(s3_server: EmbeddedS3, tmp_path: Path) -> None:
    with started("work", "--port", "0", cwd=tmp_path, **serving(s3_server)) as (process, lines):
        url = next(json.loads(line)["url"] for line in lines if '"listening"' in line)
        with httpx.Client(base_url=url, trust_env=False) as http:
            assert http.get("/healthz").status_code == 200
            assert http.get("/readyz").json()["status"] == "ready"
            assert "\ndarkroom_worker_slots 8.0\n" in http.get("/metrics").text
            assert http.post("/v1/jobs", json={}).status_code == 404
            assert http.post("/callbacks/apiframe/x").status_code == 404
        stopped(process, lines)


def test_the_sandbox_says_where_it_is_and_stops(tmp_path: Path) -> None:
    with started("sandbox", "--port", "0", cwd=tmp_path) as (process, lines):
        line = next(line for line in lines if "APIFRAME__BASE_URL" in line)
        about = httpx.get(line.strip().partition("=")[2], trust_env=False).json()
        assert "sandbox" in about["what"]
        stopped(process, lines)


def test_the_sandbox_stands_in_for_one_gateway(tmp_path: Path) -> None:
    with started("sandbox", "--port", "0", "--gateway", "api-in-one", cwd=tmp_path) as (process, lines):
        line = next(line for line in lines if "__BASE_URL" in line)
        assert "API_IN_ONE" in line
        about = httpx.get(line.strip().partition("=")[2], trust_env=False).json()
        assert "apiframe" not in about
        stopped(process, lines)


@pytest.mark.parametrize(
    "arguments", [("--latency", "2"), ("--latency", "2,1"), ("--dialect", "x"), ("--gateway", "x")]
)
def test_misuse_of_the_sandbox_is_told(arguments: tuple[str, ...]) -> None:
    assert in_process("sandbox", *arguments).returncode == 2
