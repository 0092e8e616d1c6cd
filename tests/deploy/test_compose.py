"""`deploy/compose.yaml`: held to the schema of Compose files, and run in parts, outside of containers."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from receiver.cli.sandbox import settings_lines
from receiver.demo.gateways import settings_of
from receiver.sandbox import SandboxServer
from receiver.sandbox.gateways import stand_ins
from tests.deploy.containers import make_keys
from tests.deploy.deployed import DEPLOY, compose
from tests.support.running import command

FILES = ("compose.yaml", "compose.sandbox.yaml")
SERVICES = compose(*FILES)


def test_they_are_what_compose_takes(tmp_path: Path) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((DEPLOY / "compose.yaml").read_text().replace("read_only: true", "readonly: true"))
    for files, code in (([DEPLOY / name for name in FILES], 0), ([wrong], 1)):
        done = subprocess.run([*check, *map(str, files)], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr


def test_containers_may_do_no_more_than_they_must() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert service.get("cap_add", []) == (["CHOWN"] if name == "keys" else []), name
        # The one that makes files for others is root, without a network and without root's other powers.
        assert service.get("user") != "0:0" or service["network_mode"] == "none", name
        assert re.search(r":[\w.]+$", service["image"]), f"{name} has no version"


def test_only_loopback_gets_in_and_nobody_to_postgres() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"darkroom": ["127.0.0.1:8321:8321"], "seaweedfs": ["127.0.0.1:8333:8333"]}
    networks = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["networks"]
    assert SERVICES["postgres"]["networks"] == ["ledger"]
    assert networks["ledger"] == {"internal": True}
    on_ledger = {name for name, one in SERVICES.items() if "ledger" in one.get("networks", [])}
    assert on_ledger == {"darkroom", "postgres"}


def test_volumes_are_named_and_secrets_have_one_reader() -> None:
    named = set(yaml.safe_load((DEPLOY / "compose.yaml").read_text())["volumes"])
    used = {name: [one.split(":") for one in made.get("volumes", [])] for name, made in SERVICES.items()}
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
    found = re.findall(r"\b\d{3,5}\b", script)
    numbers = dict(zip(("darkroom", "postgres", "seaweedfs"), found, strict=False))
    for name in ("postgres", "seaweedfs"):
        assert SERVICES[name]["user"] == f"{numbers[name]}:{numbers[name]}"
    assert f"USER {numbers['darkroom']}:{numbers['darkroom']}" in (DEPLOY / "Dockerfile").read_text()


def test_the_sandbox_is_reached_as_it_says_itself() -> None:
    sandbox = SandboxServer(port=8322, gateways=stand_ins(["apiframe", "api-in-one"]))
    told = dict(line.split("=", 1) for line in settings_lines(settings_of(sandbox)))
    laid_over = yaml.safe_load((DEPLOY / "compose.sandbox.yaml").read_text())["services"]
    assert laid_over["darkroom"]["environment"] == told
    gateways = [part for gateway in sandbox.gateways for part in ("--gateway", gateway.name)]
    assert laid_over["sandbox"]["command"] == ["darkroom", "sandbox", *gateways, "--port", "8322"]


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


def test_made_secrets_and_a_gateway_key_are_enough(tmp_path: Path) -> None:
    folder = make_keys(tmp_path)
    given: dict[str, Any] = compose("compose.yaml")["darkroom"]["environment"]
    missing = command("config", cwd=folder, **given)
    assert "the key of at least one gateway" in missing.stderr
    named = re.findall(r"DARKROOM_\w+", missing.stderr)
    assert [name for name in named if not name.endswith("__API_KEY")] == [], "and nothing else"
    done = command("config", "--json", cwd=folder, **given, DARKROOM_GATEWAYS__APIFRAME__API_KEY="afk_key")
    assert (done.returncode, done.stderr) == (0, "")
    values = {row["variable"]: row["value"] for row in json.loads(done.stdout)}
    assert values["DARKROOM_S3__ENDPOINT"] == "http://seaweedfs:8333"
    assert all(values[f"DARKROOM_{name}"] for name in ("SECRET_KEYS", "API_TOKENS", "DATABASE_URL"))
