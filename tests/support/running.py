"""One running Darkroom for the tests of the client and the commands, and how to run a command."""

from __future__ import annotations

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

from receiver.client import Darkroom
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from receiver.service import Service
from tests.support.live import started

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Running:
    """A service that runs in this process, with its own bucket, ledger and sandbox."""

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


def environment(**variables: str) -> dict[str, str]:
    """The environment of a command: nothing of Darkroom's or AWS's from outside."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "AWS_"))}
    return ours | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"} | variables


def data(done: subprocess.CompletedProcess[str]) -> Any:
    """What a command with `--json` printed; it must be JSON and nothing else."""
    return json.loads(done.stdout)


@contextmanager
def start(
    folder: Path, s3: EmbeddedS3, sandbox: SandboxServer, *, tokens: tuple[str, ...] = ()
) -> Iterator[Running]:
    """Run a service with a new bucket on a free port."""
    token = tokens[0].rpartition(":")[2] if tokens else None
    with (
        started(s3, folder, sandbox=sandbox, api_tokens=list(tokens)) as live,
        Darkroom(live.url, token) as ours,
    ):
        yield Running(live.url, live.service, sandbox, ours)


@pytest.fixture(scope="session")
def running(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with start(tmp_path_factory.mktemp("running"), s3_server, sandbox) as running:
        yield running
