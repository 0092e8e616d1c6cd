"""The processes that `deploy/` starts, started as it says, beside real servers."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.deploy.containers import contained, darkroom, make_keys, seaweedfs
from tests.deploy.deployed import Started, compose, image, in_kubernetes
from tests.support.live import IMAGEN, ULTRA
from tests.support.postgres import Postgres
from tests.support.processes import ROOT, await_answer, free_port
from tests.support.services import S3Access

SERVICES = compose("compose.yaml", "compose.sandbox.yaml")


@dataclass(frozen=True)
class Archive:
    """SeaweedFS, started as Compose starts it, with the keys that were made for it."""

    child: subprocess.Popen[bytes]
    url: str
    keys: Path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("compose")
    make_keys(folder)
    service = SERVICES["seaweedfs"]
    (asked,) = (word for word in service["healthcheck"]["test"] if word.startswith("http"))
    with seaweedfs(folder, service) as (child, url):
        await_answer(asked.replace("http://127.0.0.1:8333", url))
        yield Archive(child, url, folder)


def test_seaweedfs_takes_the_keys_and_shows_only_s3(archive: Archive) -> None:
    assert httpx.get(f"{archive.url}/darkroom").status_code == 403
    (identity,) = json.loads((archive.keys / "seaweedfs" / "s3.json").read_text())["identities"]
    keys = identity["credentials"][0]
    store = S3Access(archive.url, keys["accessKey"], keys["secretKey"]).open()
    store.check(create=True)
    connections = psutil.Process(archive.child.pid).net_connections()
    listening = [one.laddr for one in connections if one.status == "LISTEN"]
    beyond = {port for host, port in listening if host != "127.0.0.1"}
    assert len(listening) > 5
    # The one for gRPC of the same server goes where S3 goes.
    assert urlsplit(archive.url).port in beyond
    assert len(beyond) == 2


def test_compose_works_with_the_sandbox(archive: Archive, postgres: Postgres, postgres_url: str) -> None:
    folder, port, sandbox = archive.keys / "darkroom", free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    with closing(psycopg.connect(postgres.url(), autocommit=True)) as connection:
        connection.execute("CREATE ROLE darkroom SUPERUSER LOGIN")
    made = (folder / ".env").read_text()
    (ledger,) = re.findall(r"^DARKROOM_DATABASE_URL=(.*)$", made, re.MULTILINE)
    (token,) = re.findall(r"^DARKROOM_API_TOKENS=me:admin:(.*)$", made, re.MULTILINE)
    moved = {"http://seaweedfs:8333": archive.url, "http://127.0.0.1:8333": archive.url}
    moved |= {"http://127.0.0.1:8321": url, "http://127.0.0.1:8322": f"http://127.0.0.1:{sandbox}"}
    given = {name: moved.get(value, value) for name, value in SERVICES["darkroom"]["environment"].items()}
    given |= {
        "DARKROOM_DATABASE_URL": ledger.replace("@postgres/darkroom", f"@{postgres_url.partition('@')[2]}"),
        "DARKROOM_HOST": "127.0.0.1",
        "DARKROOM_PORT": str(port),
    }
    assert token == (folder / "api-token").read_text().strip()
    with (
        darkroom([*SERVICES["sandbox"]["command"][:-1], str(sandbox)], {}, folder),
        darkroom(SERVICES["darkroom"]["command"], {**image().given, **given}, folder),
        httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, trust_env=False) as http,
    ):
        await_answer(f"{http.base_url}/readyz")
        for body in (IMAGEN, ULTRA):
            job = http.post("/v1/jobs", json=body).json()
            job = http.get(f"/v1/jobs/{job['id']}", params={"wait": 50}, timeout=60).json()
            assert (job["status"], job["error"]) == ("archived", None)
            link = http.get(f"/v1/outputs/{job['outputs'][0]['id']}/image").headers["location"]
            assert link.startswith(f"{archive.url}/darkroom/")
            assert httpx.get(link).status_code == 200
        assert http.get("/v1/status").json()["balanced"] is True


def reached(one: Started, port: int, data: Path, s3: EmbeddedS3, ledger: str) -> dict[str, str]:
    """The environment of a pod, with our own servers in it; it gets nothing that it was not given."""
    given = one.filled()
    ours = {
        "DARKROOM_DATA_DIR": str(data),
        "DARKROOM_DATABASE_URL": ledger,
        "DARKROOM_HOST": "127.0.0.1",
        "DARKROOM_PORT": str(port),
        "DARKROOM_S3__ACCESS_KEY": s3.access_key,
        "DARKROOM_S3__SECRET_KEY": s3.secret_key,
    }
    given |= {name: value for name, value in ours.items() if name in given}
    if "DARKROOM_S3__BUCKET" in given:
        given |= {"DARKROOM_S3__ENDPOINT": s3.endpoint, "DARKROOM_S3__CREATE_BUCKET": "true"}
    return given


@pytest.mark.parametrize("one", list(in_kubernetes()), ids=lambda one: one.where)
def test_pods_become_ready(one: Started, s3_server: EmbeddedS3, postgres_url: str, tmp_path: Path) -> None:
    port, data = free_port(), tmp_path / "data"
    given = reached(one, port, data, s3_server, postgres_url)
    command = [str(port) if word == "8323" else word for word in one.command]
    with (
        darkroom(command, given, tmp_path) as child,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
    ):
        await_answer(f"{http.base_url}/readyz")
        assert http.get("/healthz").status_code == 200
        assert http.get("/metrics").status_code == (200 if one.where == "sidecar: darkroom" else 401)
        child.terminate()
        assert child.wait(15) == 0
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "serve.log", "work.log"}
    if "DARKROOM_DATABASE_URL" in given:
        assert not data.exists(), "nothing is written outside of /tmp"


def test_a_read_only_root_is_enough(s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path) -> None:
    (one,) = (one for one in in_kubernetes() if one.where == "sidecar: darkroom")
    port, data = free_port(), tmp_path / "data"
    before = contained(data)
    touch = [*before, "touch", str(ROOT / "x"), "/x"]
    tried = subprocess.run(touch, capture_output=True, text=True, check=False)
    assert tried.stderr.count("Read-only file system") == 2
    given = reached(one, port, data, s3_server, "") | {
        "DARKROOM_GATEWAYS__APIFRAME__BASE_URL": sandbox.url,
        "DARKROOM_GATEWAYS__APIFRAME__API_KEY": "afk_sandbox",
        "DARKROOM_DOWNLOAD__ALLOW_NETWORKS": "127.0.0.0/8",
    }
    with (
        darkroom(one.command, given, tmp_path, before=before),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http,
    ):
        await_answer(f"{http.base_url}/readyz")
        job = http.post("/v1/jobs", json=IMAGEN).json()
        job = http.get(f"/v1/jobs/{job['id']}", params={"wait": 50}).json()
        assert job["status"] == "archived"
        assert http.get(f"/v1/outputs/{job['outputs'][0]['id']}/thumbnail").content[8:12] == b"WEBP"
    assert {"ledger.sqlite3", "secret-key"} <= {path.name for path in data.iterdir()}
