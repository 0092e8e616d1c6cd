"""Darkroom as a process of its own, as an operator runs it."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psutil

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.http.server import listen
from receiver.sandbox import SandboxServer

ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
PORTS = itertools.cycle(15_000 + 2_000 * WORKER + (os.getpid() + n) % 2_000 for n in range(2_000))
"""Below 32,768, where Linux begins to give ports away; two runs at once begin at different ones."""


@dataclass(frozen=True)
class Process:
    child: subprocess.Popen[bytes]
    url: str
    ready_s: float
    """Seconds from the start of the process until it said that it is ready."""
    log: Path

    def rss(self) -> int:
        return sum(one.memory_info().rss for one in self.all())

    def pss(self) -> int:
        """The proportional set size of all its processes: what several share counts once."""
        return sum(one.memory_full_info().pss for one in self.all())

    def all(self) -> list[psutil.Process]:
        itself = psutil.Process(self.child.pid)
        return [itself, *itself.children(recursive=True)]

    def submit(self, body: Mapping[str, Any], **more: Any) -> str:
        """Submit a job, and return its id."""
        answer = httpx.post(f"{self.url}/v1/jobs", json={**body, **more}, trust_env=False, timeout=70)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str, *, wait: int = 0) -> dict[str, Any]:
        job: dict[str, Any] = self.get(f"/v1/jobs/{job_id}", wait=wait)
        return job

    def make(self, body: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Submit a job, and wait for its end."""
        return self.job(self.submit(body, **more), wait=60)

    def get(self, path: str, **query: Any) -> Any:
        return httpx.get(f"{self.url}{path}", params=query, trust_env=False, timeout=70).json()

    def terminate(self, sig: int = signal.SIGTERM) -> tuple[int, float]:
        """Stop it; answers the exit code and how many seconds that took."""
        began = monotonic()
        self.child.send_signal(sig)
        code = self.child.wait(30)
        return code, monotonic() - began


def environment(
    s3: EmbeddedS3, sandbox: SandboxServer, folder: Path, port: int, **more: str
) -> dict[str, str]:
    """The variables that connect a process to the test run's own parts."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "AWS_"))}
    return clean | {
        "DARKROOM_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "DARKROOM_PORT": str(port),
        # A process that works would take a second to start.
        "DARKROOM_WORKER__PROCESSES": "0",
        "DARKROOM_DATA_DIR": str(folder / "data"),
        "DARKROOM_S3__ENDPOINT": s3.endpoint,
        "DARKROOM_S3__BUCKET": f"p-{folder.name.lower().replace('_', '-')}"[:60].strip("-"),
        "DARKROOM_S3__CREATE_BUCKET": "true",
        "DARKROOM_S3__REGION": "us-east-1",
        "DARKROOM_S3__ACCESS_KEY": s3.access_key,
        "DARKROOM_S3__SECRET_KEY": s3.secret_key,
        "DARKROOM_GATEWAYS__APIFRAME__API_KEY": "afk_sandbox",
        "DARKROOM_GATEWAYS__APIFRAME__BASE_URL": sandbox.url,
        "DARKROOM_GATEWAYS__API_IN_ONE__API_KEY": "aio_sandbox",
        "DARKROOM_GATEWAYS__API_IN_ONE__BASE_URL": sandbox.url,
        "DARKROOM_DOWNLOAD__ALLOW_NETWORKS": "127.0.0.0/8",
        **more,
    }


def free_port() -> int:
    """A port that nobody listens on, and that the system gives to nobody who asks for any port.

    A service that is killed and started again finds it free, whatever else runs meanwhile; each process of a
    test run has ports of its own.
    """
    for port in itertools.islice(PORTS, 2_000):
        with suppress(OSError), listen("127.0.0.1", port):
            return port
    raise AssertionError("every port is taken")


def until(reached: Callable[[], object], within_s: float = 20) -> None:
    """Wait for what nobody announces: look again until it is so."""
    deadline = monotonic() + within_s
    while not reached():
        assert monotonic() < deadline, "it did not come to be"
        threading.Event().wait(0.01)


def nobody() -> int:
    """A port that nobody listens on now."""
    with listen("127.0.0.1", 0) as listener:
        return int(listener.getsockname()[1])


def await_ready(
    child: subprocess.Popen[bytes], url: str, log: Path | None = None, *, path: str = "/readyz"
) -> None:
    """Wait until a process answers that it is ready; `log` is what is told if it does not."""

    def said() -> str:
        return "it did not become ready" if log is None else log.read_text()

    deadline = monotonic() + 30
    transport = httpx.HTTPTransport(retries=0)
    with httpx.Client(transport=transport, trust_env=False) as client:
        while True:
            assert child.poll() is None, said()
            assert monotonic() < deadline, said()
            try:
                if client.get(url + path).is_success:
                    return
            except httpx.TransportError:
                # Nothing to wait on: the only sign of life that it gives is to listen.
                threading.Event().wait(0.005)


def await_answer(url: str) -> None:
    """Wait until somebody answers there, who may have been started from elsewhere."""
    deadline = monotonic() + 30
    with httpx.Client(trust_env=False) as client:
        while True:
            with suppress(httpx.TransportError):
                if client.get(url).is_success:
                    return
            assert monotonic() < deadline, f"{url} does not answer"
            # Nothing to wait on: the only sign of life that it gives is to listen.
            threading.Event().wait(0.02)


@contextmanager
def serving(
    variables: dict[str, str], folder: Path, *arguments: str, module: str = "receiver"
) -> Iterator[Process]:
    """Run `darkroom serve` until the end of the block; killed there if it still runs.

    `module` is one that does as `darkroom` does.
    """
    log = folder / "serve.log"
    url = f"http://127.0.0.1:{variables['DARKROOM_PORT']}"
    began = monotonic()
    with log.open("ab") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", module, "serve", *arguments],
            cwd=folder, env=variables | {"PYTHONPATH": str(ROOT)}, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        await_ready(child, url, log)
        yield Process(child, url, monotonic() - began, log)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


@contextmanager
def ending(child: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Stop a process at the end of the block: kindly, and after a while by force."""
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(15)
        finally:
            child.kill()
            child.wait()


@contextmanager
def working(variables: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `darkroom work`, which listens nowhere, until the end of the block."""
    with (folder / "work.log").open("ab") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "receiver", "work"],
            cwd=folder, env=variables | {"PYTHONPATH": str(ROOT)}, stdout=out, stderr=out,
        )  # fmt: skip
    with ending(child):
        yield child


def watch_rss(process: Process, until: Callable[[], None]) -> int:
    """The most resident bytes that a process had while something was done."""
    watched, most, done = process.all(), process.rss(), threading.Event()

    def look() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, sum(one.memory_info().rss for one in watched))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        until()
    finally:
        done.set()
        watcher.join()
    return most
