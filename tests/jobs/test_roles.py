"""One process for each part: callbacks, the API, and the work, each with no more than it needs."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from receiver.app import build
from receiver.callbacks.tokens import CallbackTokens
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.errors import BadSignature, BadToken
from receiver.gateways.registry import Gateways
from receiver.sandbox import SandboxServer
from receiver.schedule import system_clock
from receiver.service import Role
from receiver.settings import Settings
from tests.support.ledgers import REQUEST, add_job
from tests.support.live import IMAGEN, ULTRA
from tests.support.processes import Process, environment, free_port, serving, working
from tests.support.running import command
from tests.support.running import environment as variables

KEY = "0123456789abcdef0123456789abcdef"
TOKEN = "a-token-that-is-long-enough"
BEARER = {"authorization": f"Bearer {TOKEN}"}
NEEDED = {"DARKROOM_PORT", "DARKROOM_SECRET_KEYS", "DARKROOM_GATEWAYS__APIFRAME__API_KEY"}
"""All that the process which takes callbacks is given, beside the place of the ledger."""


@dataclass(frozen=True)
class Parts:
    callbacks: Process
    api: Process
    work: psutil.Process
    ledger_port: int | None

    def make(self, body: Mapping[str, object]) -> dict[str, object]:
        job = httpx.post(f"{self.api.url}/v1/jobs", json=dict(body), headers=BEARER).json()
        url = f"{self.api.url}/v1/jobs/{job['id']}"
        made: dict[str, object] = httpx.get(url, params={"wait": 30}, headers=BEARER, timeout=40).json()
        return made


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.exhaustive)])
def parts(
    request: pytest.FixtureRequest,
    s3_server: EmbeddedS3,
    sandbox: SandboxServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Parts]:
    folder = tmp_path_factory.mktemp("roles")
    port, more, where = free_port(), {"DARKROOM_SECRET_KEYS": KEY}, "DARKROOM_DATA_DIR"
    ledger_port = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        name = server.create(request.getfixturevalue("postgres_template"))
        ledger_port, where = server.port, "DARKROOM_DATABASE_URL"
        more[where] = server.url(name)
    whole = environment(s3_server, sandbox, folder, port, **more)
    few = {name: value for name, value in whole.items() if not name.startswith("DARKROOM_")}
    few |= {name: whole[name] for name in (*NEEDED, where)}
    with_api = {**whole, "DARKROOM_PORT": str(free_port()), "DARKROOM_API_TOKENS": f"me:admin:{TOKEN}"}
    folders = [folder / name for name in ("callbacks", "api", "work")]
    for one in folders:
        one.mkdir()
    with ExitStack() as stack:
        callbacks = stack.enter_context(serving(few, folders[0], "--only", "callbacks"))
        api = stack.enter_context(serving(with_api, folders[1], "--only", "api"))
        work = stack.enter_context(working(whole, folders[2]))
        yield Parts(callbacks, api, psutil.Process(work.pid), ledger_port)


@pytest.mark.parametrize("body", [IMAGEN, ULTRA], ids=["apiframe", "api-in-one"])
def test_a_job_goes_through_all_parts(parts: Parts, body: Mapping[str, object]) -> None:
    job = parts.make(body)
    assert (job["status"], job["found_by"]) == ("archived", "callback")
    found = httpx.get(f"{parts.api.url}/v1/outputs", params={"job": str(job["id"])}, headers=BEARER).json()
    image = httpx.get(f"{parts.api.url}/v1/outputs/{found['outputs'][0]['id']}/image", headers=BEARER)
    assert httpx.get(image.headers["location"]).status_code == 200
    assert httpx.get(f"{parts.api.url}/v1/status", headers=BEARER).json()["balanced"]


def test_what_takes_callbacks_reaches_the_ledger_only(parts: Parts) -> None:
    parts.make(IMAGEN)
    process = psutil.Process(parts.callbacks.child.pid)
    own = int(parts.callbacks.url.rpartition(":")[2])
    opened = [one for one in process.net_connections() if one.status == psutil.CONN_ESTABLISHED]
    reached = {one.raddr.port for one in opened if one.laddr.port != own}
    assert reached <= {parts.ledger_port}
    given = {name for name in process.environ() if name.startswith(("DARKROOM_", "AWS_"))}
    assert given - {"DARKROOM_DATA_DIR", "DARKROOM_DATABASE_URL"} == NEEDED


@pytest.mark.parametrize(
    "path", ["/", "/v1/jobs", "/v1/outputs", "/docs", "/openapi.json", "/jobs", "/sign-in"]
)
def test_what_takes_callbacks_has_no_api(parts: Parts, path: str) -> None:
    assert httpx.get(parts.callbacks.url + path, headers=BEARER).status_code == 404
    assert httpx.post(parts.callbacks.url + path, headers=BEARER).status_code == 404


def test_it_believes_no_more_than_the_whole_does(parts: Parts) -> None:
    job = parts.make(IMAGEN)
    tokens = CallbackTokens([KEY], max_age_s=3600, clock=system_clock)
    path = f"/callbacks/apiframe/{tokens.make('apiframe', str(job['id']))}"
    signed = {"x-webhook-signature": "00" * 32}
    forged = httpx.post(parts.callbacks.url + path, content=b'{"jobId": "x"}', headers=signed)
    assert (forged.status_code, forged.json()["code"]) == (BadSignature.status, BadSignature.code)
    strange = httpx.post(f"{parts.callbacks.url}/callbacks/apiframe/nonsense", content=b"{}")
    assert (strange.status_code, strange.json()["code"]) == (BadToken.status, BadToken.code)
    # Nor does the API take a callback, however true its token is.
    assert httpx.post(parts.api.url + path, content=b"{}").status_code == 404


def test_each_part_is_watched_by_itself(parts: Parts) -> None:
    parts.make(IMAGEN)
    ready = httpx.get(f"{parts.callbacks.url}/readyz").json()
    assert ready == {"status": "ready", "checks": {"ledger": "ok"}, "warnings": {}}
    checked = {"ledger", "archive", "results", "history", "workers"}
    assert set(httpx.get(f"{parts.api.url}/readyz").json()["checks"]) == checked
    shown = httpx.get(f"{parts.callbacks.url}/metrics").text
    assert 'darkroom_callbacks_total{gateway="apiframe",outcome="accepted"}' in shown
    assert "darkroom_intake_waiting_callbacks 0.0" in shown
    assert httpx.get(f"{parts.api.url}/metrics").status_code == 401
    assert "darkroom_status_balanced 1.0" in httpx.get(f"{parts.api.url}/metrics", headers=BEARER).text


@pytest.mark.exhaustive
def test_what_it_lacks_is_named(tmp_path: Path) -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    done = command("serve", "--only", "callbacks", cwd=tmp_path, DARKROOM_DATABASE_URL=url)
    assert done.returncode == 2
    assert "DARKROOM_SECRET_KEYS: with PostgreSQL every replica needs the same keys" in done.stderr
    assert "DARKROOM_S3" not in done.stderr
    done = command("serve", "--only", "api", cwd=tmp_path)
    assert done.returncode == 2
    assert "DARKROOM_S3__BUCKET" in done.stderr


@pytest.mark.parametrize("key", [None, "afk_something"])
def test_it_says_whose_callbacks_it_cannot_prove(tmp_path: Path, key: str | None) -> None:
    """Of the gateways that are used: that others have no key is as it should be."""
    gateways = Gateways.model_validate({"apiframe": {"api_key": key}})
    settings = Settings(data_dir=tmp_path, host="0.0.0.0", gateways=gateways)
    service = build(settings, role=Role.CALLBACKS)  # it has no API that would need a token
    try:
        service.resources.database.migrate()
        add_job(service.resources.ledger, "job-1", "apiframe", REQUEST)
        warnings = service.health.ask().warnings
    finally:
        service.resources.database.close()
    assert list(warnings) == ([] if key else ["apiframe"])


POSTGRESQL = "sqlalchemy.dialects.postgresql"
NEVER = {"alembic", "typer", "rich", "pygments", "PIL", "jinja2", "markdown_it", "pebble", POSTGRESQL}
"""What no part needs to serve or to work: a migration, help, thumbnails, pages and PostgreSQL load it."""
OF_THE_REST = {
    "boto3",
    "httpx",
    "receiver.jobs.submit",
    "receiver.download.downloader",
    "receiver.gallery.routes",
}
EXAMPLE = {
    "DARKROOM_S3__BUCKET": "pictures",
    "DARKROOM_S3__REGION": "us-east-1",
    "DARKROOM_GATEWAYS__APIFRAME__API_KEY": "afk_example",
}


@pytest.mark.parametrize(
    ("role", "without"),
    [
        (Role.CALLBACKS, NEVER | OF_THE_REST),
        (Role.WORK, NEVER | {"receiver.gallery.routes", "receiver.api.jobs"}),
        (Role.ALL, NEVER),
    ],
)
def test_it_loads_nothing_that_its_role_does_not_use(role: Role, without: set[str], tmp_path: Path) -> None:
    program = (
        f"import sys\nfrom receiver.cli import main\nmain.lean(only_callbacks={role is Role.CALLBACKS})\n"
        "from receiver.cli.run import built\n"
        "from receiver.service import Role\nfrom receiver.settings import load\n"
        f"service = built(load(), Role({role.value!r}))\nservice.resources.database.migrate()\n"
        "print(*sys.modules)"
    )
    first, second = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path, env=variables(**EXAMPLE), capture_output=True, text=True, check=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert "alembic" in first.stdout.split(), "the ledger is new"
    loaded = set(second.stdout.split())
    assert "receiver.callbacks.endpoint" in loaded
    assert not loaded & without


@pytest.mark.parametrize("role", [Role.ALL, Role.CALLBACKS])
def test_what_is_preloaded_is_all_that_a_forked_process_needs(role: Role, tmp_path: Path) -> None:
    """What it loads by itself it shares with no other."""
    program = (
        f"import sys\nfrom receiver.cli import main\nmain.lean(only_callbacks={role is Role.CALLBACKS})\n"
        "from receiver.cli.run import built\n"
        "from receiver.preload import preload\nfrom receiver.service import Role\n"
        f"from receiver.settings import load\nrole = Role({role.value!r})\npreload(role)\n"
        "before = set(sys.modules)\nservice = built(load(), role)\nservice.resources.database.gate.check()\n"
        "service.asgi()\nprint(*(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=variables(**EXAMPLE), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [name for name in done.stdout.split() if name.startswith(("receiver", "storage"))] == []
