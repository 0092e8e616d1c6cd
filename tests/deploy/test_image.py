"""`deploy/Dockerfile`: no image is built here, so what can go wrong in it is looked for by reading it."""

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.deploy.deployed import DEPLOY, image
from tests.support.live import Live
from tests.support.running import ROOT

TEXT = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_a_linter_finds_nothing(tmp_path: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint is not None
    bad = tmp_path / "Dockerfile"
    bad.write_text(TEXT.replace("FROM python:3.13-slim\n", "FROM python\n"))
    for file, code in ((DEPLOY / "Dockerfile", 0), (bad, 1)):
        done = subprocess.run([hadolint, "--no-color", file], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr


def test_what_it_copies_is_there_and_let_in() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*", "nothing is let in that is not named"
    wanted = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", TEXT, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert wanted
    for word in wanted:
        assert (ROOT / word).exists(), word
        assert f"!{word}" in ignored, word
    # `pip install` reads these of the project, and no others.
    needed = {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "receiver", "storage"}
    assert needed == set(wanted)
    assert not [name for name in (".env", ".git", "tests") if any(fnmatch.fnmatch(name, w) for w in wanted)]


def test_it_has_the_versions_that_the_project_names() -> None:
    (python,) = set(re.findall(r"^FROM python:([\d.]+)-slim", TEXT, re.MULTILINE))
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]
    assert set(re.findall(r"/lib/python([\d.]+)/", TEXT)) == {python}
    assert f'org.opencontainers.image.version="{PROJECT["version"]}"' in TEXT
    (extras,) = re.findall(r"/src\[(\w+)\]", TEXT)
    assert extras in PROJECT["optional-dependencies"]


def test_it_runs_as_nobody_in_particular() -> None:
    last = TEXT.rpartition("\nFROM ")[2]
    (user,) = re.findall(r"^USER (.*)$", last, re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user), "a number, which Kubernetes can check"
    assert last.index("RUN ") < last.index("USER "), "nothing is made as root after that"
    assert "STOPSIGNAL SIGTERM" in last


def test_its_health_check_asks_for_what_it_serves(live: Live) -> None:
    (url,) = re.findall(r"urlopen\('(http://[^']+)'", TEXT)
    port = image().given["DARKROOM_PORT"]
    assert url == f"http://127.0.0.1:{port}/healthz"
    assert f"EXPOSE {port}" in TEXT
    (program,) = re.findall(r'CMD \["python", "-c", "(.*)"\]', TEXT)
    for at, code in ((live.url, 0), ("http://127.0.0.1:9", 1)):
        asked = program.replace(f"http://127.0.0.1:{port}", at)
        done = subprocess.run([sys.executable, "-c", asked], capture_output=True, timeout=30, check=False)
        assert done.returncode == code
