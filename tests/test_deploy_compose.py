"""`deploy/compose.yaml`: held to the schema of Compose files, and run in parts, outside of containers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import httpx
import psutil
import pytest
import yaml

from receiver.commands.running import _sandbox_settings
from receiver.embedded import find_binary
from storage.objects import ObjectStore
from tests.deployed import DEPLOY, Document, compose
from tests.processes import free_port
from tests.running import command

FILES = ("compose.yaml", "compose.sandbox.yaml")
SERVICES = compose(*FILES)
OURS = {"keys", "darkroom", "sandbox"}
FOLDERS = ("darkroom", "postgres", "seaweedfs", "archive")


def test_they_are_what_compose_takes(tmp_path: Path) -> None:
    check: list[str | Path] = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
    ]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((DEPLOY / "compose.yaml").read_text().replace("read_only: true", "readonly: true"))
    for files, code in (([DEPLOY / name for name in FILES], 0), ([wrong], 1)):
        done = subprocess.run([*check, *files], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_containers_may_do_no_more_than_they_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service.get("cap_add", []) == (["CHOWN"] if name == "keys" else [])
    # The one that makes files for others is root, without a network and without root's other powers.
    assert service.get("user") != "0:0" or service["network_mode"] == "none"
    assert re.search(r":[\w.]+$", service["image"]), "a version"


def test_only_loopback_reaches_them_and_nobody_reaches_postgres() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"darkroom": ["127.0.0.1:8321:8321"], "seaweedfs": ["127.0.0.1:8333:8333"]}
    networks = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["networks"]
    assert SERVICES["postgres"]["networks"] == ["ledger"]
    assert networks["ledger"] == {"internal": True}
    assert [name for name, one in SERVICES.items() if "ledger" in one.get("networks", [])] == [
        "darkroom",
        "postgres",
    ]


def test_each_waits_for_what_it_needs() -> None:
    needs = {
        name: {other: how["condition"] for other, how in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    made = {"keys": "service_completed_successfully"}
    healthy = {"postgres": "service_healthy", "seaweedfs": "service_healthy"}
    assert needs == {
        "keys": {},
        "darkroom": made | healthy,
        "postgres": made,
        "seaweedfs": made,
        "sandbox": {"darkroom": "service_started"},
    }
    assert all("test" in SERVICES[name]["healthcheck"] for name in healthy)


def test_volumes_are_named_and_each_secret_has_one_reader() -> None:
    named = set(yaml.safe_load((DEPLOY / "compose.yaml").read_text())["volumes"])
    used = {
        name: [volume.split(":") for volume in service.get("volumes", [])]
        for name, service in SERVICES.items()
    }
    mounted = {source for volumes in used.values() for source, *_ in volumes}
    assert {source for source in mounted if not source.startswith("./")} == named
    assert all((DEPLOY / source).exists() for source in mounted if source.startswith("./"))
    readers = {
        volume[0]: (name, volume[-1])
        for name, volumes in used.items()
        for volume in volumes
        if volume[0].endswith("-keys") and name != "keys"
    }
    assert readers == {f"{name}-keys": (name, "ro") for name in ("darkroom", "postgres", "seaweedfs")}


def test_files_are_given_to_whom_the_containers_run_as() -> None:
    script = (DEPLOY / "compose-keys.py").read_text()
    numbers = dict(
        zip(("darkroom", "postgres", "seaweedfs"), re.findall(r"\b\d{3,5}\b", script), strict=False)
    )
    for name in ("postgres", "seaweedfs"):
        assert SERVICES[name]["user"] == f"{numbers[name]}:{numbers[name]}"
    assert f"USER {numbers['darkroom']}:{numbers['darkroom']}" in (DEPLOY / "Dockerfile").read_text()


def test_the_sandbox_is_reached_as_it_says_itself() -> None:
    told = dict(line.split("=", 1) for line in _sandbox_settings("http://127.0.0.1:8322").splitlines())
    laid_over = yaml.safe_load((DEPLOY / "compose.sandbox.yaml").read_text())["services"]
    assert laid_over["darkroom"]["environment"] == told
    assert laid_over["sandbox"]["command"][-2:] == ["--port", "8322"]


def make_keys(folder: Path) -> Path:
    """Make the secrets as the container does; answers the folder with those of Darkroom."""
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
    script = [sys.executable, "-I", str(DEPLOY / "compose-keys.py"), str(folder)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder / "darkroom"


def found(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file there, with who may do what with it, and what it holds."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mode & 0o777, path.read_text()) for path in files}


def test_secrets_are_made_once(tmp_path: Path) -> None:
    make_keys(tmp_path)
    first = found(tmp_path)
    theirs = {"postgres/password", "seaweedfs/s3.json", "seaweedfs/security.toml"}
    assert set(first) == {"darkroom/.env", "darkroom/api-token", *theirs}
    assert {mode for mode, _ in first.values()} == {0o400}
    make_keys(tmp_path)
    assert found(tmp_path) == first
    (tmp_path / "other").mkdir()
    make_keys(tmp_path / "other")
    assert not {text for _, text in found(tmp_path / "other").values()} & {text for _, text in first.values()}


def test_half_made_secrets_are_made_anew(tmp_path: Path) -> None:
    settings = make_keys(tmp_path) / ".env"
    settings.unlink()
    (tmp_path / "postgres" / "password.new").write_text("half")
    make_keys(tmp_path)
    password = (tmp_path / "postgres" / "password").read_text()
    assert f":{password}@postgres/" in settings.read_text()
    assert not (tmp_path / "postgres" / "password.new").exists()


def test_darkroom_starts_with_what_was_made_and_a_gateway_key(tmp_path: Path) -> None:
    folder = make_keys(tmp_path)
    given: dict[str, Any] = compose("compose.yaml")["darkroom"]["environment"]
    missing = command("config", cwd=folder, **given)
    assert "the key of at least one gateway" in missing.stderr
    assert missing.stderr.count("DARKROOM_") == 2, "and nothing else"
    done = command("config", "--json", cwd=folder, **given, DARKROOM_GATEWAYS__APIFRAME__API_KEY="afk_key")
    assert (done.returncode, done.stderr) == (0, "")
    values = {row["variable"]: row["value"] for row in json.loads(done.stdout)}
    assert values["DARKROOM_S3__ENDPOINT"] == "http://seaweedfs:8333"
    assert all(values[f"DARKROOM_{name}"] for name in ("SECRET_KEYS", "API_TOKENS", "DATABASE_URL"))


def until(healthy: Callable[[], bool]) -> None:
    """Ask until it answers that all is well, as Compose does."""
    deadline = monotonic() + 30
    while True:
        with suppress(httpx.TransportError):
            if healthy():
                return
        assert monotonic() < deadline
        Event().wait(0.05)


@contextmanager
def seaweedfs(folder: Path, service: Document) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """SeaweedFS as Compose starts it, on ports of its own; answers the process and where S3 is."""
    ports = {server: free_port() for server in ("s3", "master", "volume", "filer")}
    words = [str(find_binary())]
    for word in service["entrypoint"][1:]:
        if not word.startswith("-s3.port="):
            words.append(
                word.replace("=/archive", f"={folder}/archive").replace("/keys", f"{folder}/seaweedfs")
            )
    words += [f"-{server}.port={port}" for server, port in ports.items()]
    words += [f"-{server}.port.grpc={free_port()}" for server in ports]
    with (folder / "seaweedfs.log").open("wb") as out:
        child = subprocess.Popen(
            words, cwd=folder / "seaweedfs", env={"HOME": f"{folder}/archive"}, stdout=out, stderr=out
        )
    try:
        yield child, f"http://127.0.0.1:{ports['s3']}"
    finally:
        child.kill()
        child.wait()


def test_seaweedfs_takes_the_keys_and_shows_only_s3(tmp_path: Path) -> None:
    make_keys(tmp_path)
    service = SERVICES["seaweedfs"]
    (asked,) = (word for word in service["healthcheck"]["test"] if word.startswith("http"))
    with seaweedfs(tmp_path, service) as (child, url):
        with httpx.Client(trust_env=False) as http:
            until(lambda: http.get(asked.replace("http://127.0.0.1:8333", url)).status_code == 200)
            assert http.get(f"{url}/darkroom").status_code == 403
        (identity,) = json.loads((tmp_path / "seaweedfs" / "s3.json").read_text())["identities"]
        keys = identity["credentials"][0]
        store = ObjectStore.connect(
            bucket="darkroom",
            endpoint=url,
            region="us-east-1",
            access_key=keys["accessKey"],
            secret_key=keys["secretKey"],
        )
        store.check(create=True)
        listening = [
            one.laddr for one in psutil.Process(child.pid).net_connections() if one.status == "LISTEN"
        ]
        beyond = {port for host, port in listening if host != "127.0.0.1"}
        assert len(listening) > 5
        # The one for gRPC of the same server goes where S3 goes.
        assert int(url.rpartition(":")[2]) in beyond
        assert len(beyond) == 2
