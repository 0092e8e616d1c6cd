"""Start services as processes from the test's side, see them die, and kill them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Self

from storage.ledger.wakeup import readable_of
from tests.faults.child import Wanted

ROOT = Path(__file__).parent.parent.parent


class Child:
    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid = pid
        self._connection = connection
        self._ended = False

    def ended(self, within_s: float = 0.0) -> bool:
        """Whether it is dead, or will be within that time."""
        if not self._ended:
            ready = readable_of([self._connection], within_s)
            if ready and not self._connection.recv(1):
                self._ended = True
                self._connection.close()
        return self._ended

    def signal(self, sig: int) -> None:
        """Send it a signal: SIGSTOP to freeze it, SIGCONT to thaw it, SIGTERM to stop it cleanly."""
        assert not self.ended(), f"process {self.pid} is dead already"
        os.kill(self.pid, sig)

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone; does nothing if it is."""
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
        assert self.ended(10), f"process {self.pid} survived SIGKILL"


class Forks:
    """A process that has imported Darkroom already and forks services from it, for the length of a block."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self._path = self._folder / "s"
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.faults.child", str(self._path)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_error: object) -> None:
        if self._server is not None:
            self._server.communicate(timeout=10)
        shutil.rmtree(self._folder)

    def start(self, wanted: Wanted) -> Child:
        """Fork a service; it is not up yet."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._path))
        connection.sendall(json.dumps(asdict(wanted)).encode() + b"\n")
        with connection.makefile("r") as lines:
            return Child(connection, int(lines.readline()))
