"""`deploy/systemd/`: read by systemd's own checks, and held to by a real Darkroom."""

import ctypes.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.deploy.deployed import DEPLOY
from tests.support.live import IMAGEN, ULTRA
from tests.support.processes import ROOT, environment, free_port, serving

UNITS = {"darkroom.service": "darkroom.service", "darkroom-work@.service": "darkroom-work@8323.service"}
MOST_EXPOSED = 1.5
"""As `systemd-analyze security` counts, from 0 to 10. What is left is the network, which it needs."""


def lines(unit: str) -> list[str]:
    text = (DEPLOY / "systemd" / unit).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with a program that is there, and an instance of the one that is a template."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed, so deploy/systemd was not checked with it")
    for unit, name in UNITS.items():
        text = (DEPLOY / "systemd" / unit).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("/opt/darkroom/bin/darkroom", sys.executable))
    return tmp_path


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("name", UNITS.values())
def test_systemd_takes_them(units: Path, name: str) -> None:
    done = analyze("verify", "--man=no", str(units / name))
    # It says of a line that it does not know that it is ignored, and is content all the same.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (units / name).write_text((units / name).read_text().replace("NoNewPrivileges=", "NoPrivileges="))
    assert "NoPrivileges" in analyze("verify", "--man=no", str(units / name)).stderr


@pytest.mark.parametrize("name", UNITS.values())
def test_systemd_finds_little_exposed(units: Path, name: str) -> None:
    done = analyze("security", "--no-pager", "--offline=yes", str(units / name))
    if "offline" in done.stderr:
        pytest.skip("this systemd-analyze cannot check a unit that is not installed")
    (exposed,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(exposed) <= MOST_EXPOSED, done.stdout


def test_both_are_held_to_the_same() -> None:
    serve, work = (lines(unit) for unit in UNITS)
    differ = {line.partition("=")[0] for line in {*serve} ^ {*work}}
    assert differ == {"Description", "ExecStart"}


def test_settings_are_read_from_a_file_for_root_alone() -> None:
    text = (DEPLOY / "systemd" / "darkroom.service").read_text(encoding="utf-8")
    (file,) = re.findall(r"^EnvironmentFile=(.*)$", text, re.MULTILINE)
    assert f"install -D -m 0600 your.env {file}" in text
    assert "StateDirectory=darkroom" in text
    assert "DARKROOM_DATA_DIR=/var/lib/darkroom" in text


def test_darkroom_lives_with_what_it_is_refused(
    units: Path, s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    can = "from tests.deploy.confined import confine; confine()"
    tried = subprocess.run([sys.executable, "-c", can], cwd=ROOT, capture_output=True, text=True, check=False)
    if "PR_SET_MDWE" in tried.stderr or ctypes.util.find_library("seccomp") is None:
        pytest.skip("this kernel cannot refuse what darkroom.service refuses, so that was not tried")
    assert tried.returncode == 0, tried.stderr
    variables = environment(s3_server, sandbox, tmp_path, free_port())
    with (
        serving(variables, tmp_path, module="tests.deploy.confined") as process,
        httpx.Client(base_url=process.url, trust_env=False, timeout=60) as http,
    ):
        status = Path(f"/proc/{process.child.pid}/status").read_text()
        assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE), "it is confined"
        for body in (IMAGEN, ULTRA):
            job = http.post("/v1/jobs", json=body).json()
            job = http.get(f"/v1/jobs/{job['id']}", params={"wait": 50}).json()
            assert job["status"] == "archived", job
            for output in job["outputs"]:
                assert http.get(f"/v1/outputs/{output['id']}/thumbnail").content[8:12] == b"WEBP"
                assert http.get(f"/v1/outputs/{output['id']}/image", params={"stream": 1}).status_code == 200
        # The helper that decodes images has still given up what it does not need.
        (helper,) = psutil.Process(process.child.pid).children()
        limits = Path(f"/proc/{helper.pid}/limits").read_text()
        assert re.search(r"^Max processes\s+0\s+0\s", limits, re.MULTILINE)
        assert re.search(r"^Max open files\s+0\s+0\s", limits, re.MULTILINE)
        assert http.get("/metrics").status_code == 200
        assert process.terminate()[0] == 0
