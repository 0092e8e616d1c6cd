"""Run Darkroom for the tests of the client and the commands, and run commands."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from receiver.cli.commands import app
from receiver.client import Darkroom
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from receiver.service import Service
from tests.support.live import started

ROOT = Path(__file__).parents[2]
APART = {"demo", "migrate-ledger", "sandbox", "serve", "work"}
"""Commands that change signals, logs or warnings for their whole process."""


@dataclass(frozen=True)
class Running:
    """A service in this process, with its own bucket, ledger and sandbox."""

    url: str
    service: Service
    sandbox: SandboxServer
    darkroom: Darkroom

    def darkroom_command(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run `darkroom ...` with DARKROOM_URL set to this service."""
        return command(*arguments, DARKROOM_URL=self.url, **more)


def command(
    *arguments: str, stdin: str = "", cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `darkroom ...` with these variables only; in this process where that does it no harm."""
    run = process if arguments and arguments[0] in APART else in_process
    return run(*arguments, stdin=stdin, cwd=cwd, **variables)


def in_process(
    *arguments: str, stdin: str = "", cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `darkroom ...` in this process, which saves starting an interpreter."""
    outside: dict[str, str | None] = {
        name: None for name in os.environ if name.startswith(("DARKROOM_", "AWS_"))
    }
    with contextlib.chdir(cwd or ROOT), _logs_apart():
        done = CliRunner().invoke(
            app,
            arguments,
            input=stdin,
            env=outside | variables,
            prog_name="darkroom",
            catch_exceptions=False,
        )
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


@contextmanager
def _logs_apart() -> Iterator[None]:
    """Keep what the service logs in this process meanwhile out of what the command prints."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        yield
    finally:
        structlog.configure(**before)


def process(
    *arguments: str, stdin: str = "", cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `darkroom ...` in a process of its own, as a user would, with these variables only."""
    return subprocess.run(
        [sys.executable, "-m", "receiver", *arguments],
        env=environment(**variables),
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def begun(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.Popen[str]:
    """Begin `darkroom ...` in a process of its own, with these variables only."""
    words = [sys.executable, "-m", "receiver", *arguments]
    out = subprocess.PIPE
    return subprocess.Popen(words, env=environment(**variables), cwd=cwd, stdout=out, stderr=out, text=True)


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a command, without Darkroom's or AWS's variables from outside."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "AWS_"))}
    return ours | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"} | variables


def data(done: subprocess.CompletedProcess[str]) -> Any:
    """Parse what a command with `--json` printed; it must be JSON and nothing else."""
    return json.loads(done.stdout)


@contextmanager
def start(
    folder: Path, s3: EmbeddedS3, sandbox: SandboxServer, *, tokens: tuple[str, ...] = (), work: bool = True
) -> Iterator[Running]:
    """Run a service with a new bucket on a free port."""
    token = tokens[0].rpartition(":")[2] if tokens else None
    with (
        started(s3, folder, sandbox=sandbox, api_tokens=list(tokens), work=work) as live,
        Darkroom(live.url, token) as ours,
    ):
        yield Running(live.url, live.service, sandbox, ours)


@pytest.fixture(scope="session")
def running(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with start(tmp_path_factory.mktemp("running"), s3_server, sandbox) as running:
        yield running
