"""The installed `darkroom`, run as processes in a folder of its own."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

PROGRAM = Path(sys.executable).with_name("darkroom")
WITHIN_S = 30.0
JOB = ("--gateway", "apiframe", "--model", "imagen-4-fast")


@dataclass(frozen=True)
class Installation:
    """A folder and settings that processes and commands share."""

    folder: Path
    settings: dict[str, str]

    @property
    def url(self) -> str:
        return self.settings["DARKROOM_PUBLIC_URL"]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *words], cwd=self.folder, env=self._environment(), capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    def json(self, *words: str) -> Any:
        """Run a command with `--json`, and return what it printed."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def submit(self, prompt: str) -> str:
        job_id: str = self.json("submit", prompt, *JOB)["id"]
        return job_id

    def finish(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = {"status": "none yet"}
        deadline = time.monotonic() + 2 * WITHIN_S
        while job["status"] not in {"archived", "partial", "failed", "cancelled"}:
            assert time.monotonic() < deadline, job
            job = self.get(f"/v1/jobs/{job_id}", wait=20).json()
        return job

    def reach(self, job_id: str, status: str) -> None:
        """Wait until a job is in this status."""
        deadline = time.monotonic() + 2 * WITHIN_S
        while (job := self.get(f"/v1/jobs/{job_id}").json())["status"] != status:
            assert time.monotonic() < deadline, job
            time.sleep(0.05)

    def get(self, path: str, **query: Any) -> httpx.Response:
        """Send a GET request, and follow where it leads."""
        url = f"{self.url}{path}"
        return httpx.get(url, params=query, timeout=40, trust_env=False, follow_redirects=True)

    @contextmanager
    def process(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command until the end of the block; `serve` is ready when the block begins."""
        with (self.folder / "log").open("ab") as log:
            child = subprocess.Popen(
                [PROGRAM, *words], cwd=self.folder, env=self._environment(), stdout=log, stderr=log
            )
        try:
            if words[0] == "serve":
                self._await_ready(child)
            yield child
        finally:
            if child.poll() is None:
                child.terminate()
            child.wait(WITHIN_S)

    def _await_ready(self, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + WITHIN_S
        while True:
            assert child.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            with suppress(httpx.TransportError):
                if self.get("/readyz").is_success:
                    return
            # Nothing to wait on: the only sign of life that it gives is to listen.
            threading.Event().wait(0.05)

    def _environment(self) -> dict[str, str]:
        theirs = ("DARKROOM_", "AWS_", "PYTHONPATH")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
        return clean | self.settings | {"DARKROOM_URL": self.url, "NO_PROXY": "*"}
