"""A whole Darkroom on real parts: SQLite, SeaweedFS, uvicorn, and the sandbox as the gateways."""

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic_settings import PydanticBaseSettingsSource

from receiver.app import build
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.http.server import address, listen, served
from receiver.resources import Bucket, Factories
from receiver.sandbox import SandboxConfig, SandboxServer
from receiver.schedule import Timing, system_clock
from receiver.service import JobParts, Service
from receiver.settings import Settings, with_declared
from storage.models import Clock, Job
from tests.support.services import S3Access

FAST = Timing(
    callback_polls=(30, 60),
    poll_only=0.1,
    unconfirmed=8,
    forgotten=1,
    downloads=(0, 0.05, 0.1),
    downloads_later=0.2,
    backoff_first=0.05,
    backoff_most=0.4,
    pause_first=0.2,
    pause_most=0.4,
    breaker_first=0.1,
)
"""The usual schedules, made short where a test would otherwise wait for them."""

OPENED_WITHIN_S = 60.0

QUICK = SandboxConfig(latency_s=(0.05, 0.1), image_px=64, retry_delays_s=(0.05, 0.1, 0.2))

IMAGEN = {"gateway": "apiframe", "model": "imagen-4-fast", "prompt": "a red kite over a grey harbour"}
ULTRA = {"gateway": "api-in-one", "model": "imagen4-ultra", "prompt": "a bowl of ramen, side lighting"}


@dataclass(frozen=True)
class Live:
    """A running service and what it is connected to."""

    service: Service
    settings: Settings
    url: str
    sandbox: SandboxServer
    http: httpx.Client

    @property
    def parts(self) -> JobParts:
        assert self.service.jobs is not None
        return self.service.jobs

    @property
    def bucket(self) -> Bucket:
        return self.parts.bucket

    def submit(self, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Submit a job; the sandbox's faults go in as `fault=...`."""
        if (fault := more.pop("fault", None)) is not None:
            more["params"] = {**more.get("params", {}), "sandbox": fault}
        answer = self.http.post("/v1/jobs", json={**body, **more})
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def finish(self, job_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/jobs/{job_id}", params={"wait": 30}, timeout=40)
        job: dict[str, Any] = answer.json()
        assert job["status"] in {"archived", "partial", "failed", "cancelled"}, job
        return job

    def make(self, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        return self.finish(self.submit(body, **more)["id"])

    def outputs(self, job_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http.get("/v1/outputs", params={"job": job_id}).json()["outputs"]
        return found

    def callback_url(self, job_id: str) -> str:
        made = self.parts.submitter.urls.make(self.service.resources.ledger.job(job_id))
        assert made is not None
        return made

    def job(self, job_id: str) -> Job:
        return self.service.resources.ledger.job(job_id)

    def keys(self) -> set[str]:
        return {stored.key for stored in self.bucket.store.list("")}


Start = Callable[..., Live]


class GivenSettings(Settings):
    """Settings that come from the arguments only."""

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls,
        settings_cls: type[Settings],
        init_settings: PydanticBaseSettingsSource,
        **_others: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Ignore the environment and `.env`."""
        return (init_settings,)


def settings_for(
    s3: EmbeddedS3 | S3Access, sandbox: SandboxServer, folder: Path, /, **overrides: Any
) -> Settings:
    """Settings that connect a service to the test run's own parts, and to nothing else."""
    declared = overrides.get("gateways_dir")
    return (with_declared(declared, GivenSettings) if declared else GivenSettings)(
        data_dir=folder,
        s3={
            "endpoint": s3.endpoint,
            "bucket": f"t-{secrets.token_hex(6)}",
            "create_bucket": True,
            "region": "us-east-1",
            "access_key": s3.access_key,
            "secret_key": s3.secret_key,
            **overrides.pop("s3", {}),
        },
        gateways={
            "apiframe": {
                "api_key": "afk_sandbox",
                "base_url": sandbox.url,
                **overrides.pop("apiframe", {}),
            },
            "api_in_one": {
                "api_key": "aio_sandbox",
                "base_url": sandbox.url,
                **overrides.pop("api_in_one", {}),
            },
            **overrides.pop("gateways", {}),
        },
        download={"allow_networks": ["127.0.0.0/8"], **overrides.pop("download", {})},
        **overrides,
    )


@contextmanager
def started(
    s3: EmbeddedS3 | S3Access,
    folder: Path,
    /,
    *,
    sandbox: SandboxServer,
    timing: Timing = FAST,
    clock: Clock = system_clock,
    callbacks: bool = True,
    work: bool = True,
    factories: Factories | None = None,
    **overrides: Any,
) -> Iterator[Live]:
    """Run a service until the end of the block."""
    listener = listen("127.0.0.1", overrides.pop("port", 0))
    url = address(listener)
    if callbacks:
        overrides["public_url"] = url
    if (limit := overrides.pop("callback_bytes", None)) is not None:
        overrides["callbacks"] = {"max_bytes": limit}
    settings = settings_for(s3, sandbox, folder, **overrides)
    service = build(settings, timing=timing, clock=clock, factories=factories)
    with served(service, listener, work=work), _client(url) as http:
        # The service itself listens after a while; here a busy machine is no reason for 503.
        service.opening.wait(OPENED_WITHIN_S)
        yield Live(service, settings, url, sandbox, http)


def _client(url: str) -> httpx.Client:
    """Return a client that waits for a busy machine."""
    return httpx.Client(base_url=url, trust_env=False, timeout=30)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[SandboxServer]:
    """One sandbox for the whole run, with small images."""
    with SandboxServer(QUICK) as server:
        yield server


@pytest.fixture(scope="session")
def live(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """One service for the tests that need nothing special of it."""
    with started(s3_server, tmp_path_factory.mktemp("live"), sandbox=sandbox) as running:
        yield running


@contextmanager
def starting(s3: EmbeddedS3, sandbox: SandboxServer, own: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(folder: Path | None = None, **overrides: Any) -> Live:
            overrides.setdefault("sandbox", sandbox)
            return stack.enter_context(started(s3, folder or own, **overrides))

        yield begin


@pytest.fixture
def start(s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path) -> Iterator[Start]:
    """Start services with settings of one's own; they stop at the end of the test."""
    with starting(s3_server, sandbox, tmp_path) as begin:
        yield begin


@pytest.fixture(scope="module")
def start_shared(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    """Start a service for all tests of a file."""
    with starting(s3_server, sandbox, tmp_path_factory.mktemp("shared")) as begin:
        yield begin


class Movable:
    """A clock that runs, and can be set forward."""

    def __init__(self, base: Clock) -> None:
        self._base = base
        self._ahead_ms = 0
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            return self._base() + self._ahead_ms

    def forward(self, seconds: float) -> None:
        with self._lock:
            self._ahead_ms += int(seconds * 1000)
