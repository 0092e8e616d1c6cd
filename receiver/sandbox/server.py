"""Serve the sandbox from a thread."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from receiver.http.server import Server
from receiver.sandbox import api_in_one, apiframe, faults
from receiver.sandbox.config import DIALECTS, SandboxConfig
from receiver.sandbox.images import image, pieces
from receiver.sandbox.jobs import JobReport
from receiver.sandbox.lifecycle import Sandbox

HOST = "127.0.0.1"


def _app(sandbox: Sandbox) -> Starlette:
    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await sandbox.close()

    routes = [
        *apiframe.ROUTES,
        *api_in_one.ROUTES,
        Route("/images/{job}/{name}", image),
        Route("/sandbox/jobs", list_jobs),
        Route("/", about),
    ]
    app = Starlette(
        routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_error}, max_body_size=2**20
    )
    app.state.sandbox = sandbox
    return app


async def list_jobs(request: Request) -> Response:
    """`GET /sandbox/jobs`: every job with the callbacks that were sent, oldest first."""
    sandbox: Sandbox = request.app.state.sandbox
    return JSONResponse({"jobs": [asdict(job) for job in sandbox.jobs.reports()]})


async def about(request: Request) -> Response:
    """`GET /`: what this is."""
    sandbox: Sandbox = request.app.state.sandbox

    def keys(gateway: str) -> list[str]:
        return [account.key for account in sandbox.config.accounts if account.gateway == gateway]

    return JSONResponse(
        {
            "what": "Darkroom's sandbox: it stands in for the image gateways. Nothing here costs anything.",
            "apiframe": {
                "submit": "POST /v2/images/generate",
                "job": "GET /v2/jobs/{id}",
                "keys": keys("apiframe"),
            },
            "api-in-one": {
                "submit": "POST /api/v1/images/generations",
                "job": "GET /api/v1/tasks/{task_id}",
                "keys": keys("api-in-one"),
                "dialects": list(DIALECTS),
            },
            "jobs": "GET /sandbox/jobs",
            "faults": dict(faults.KINDS),
        }
    )


class SandboxServer:
    """A sandbox that serves on a port of its own, in a thread, until it is stopped.

    `port` 0 takes a free one. Use it as a context manager, or call `start` and `stop`. Raises OSError if
    the port is taken.
    """

    def __init__(self, config: SandboxConfig | None = None, *, port: int = 0) -> None:
        self.config = config or SandboxConfig()
        self.port = port
        self.sandbox = Sandbox(self.config)
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL: `http://127.0.0.1:PORT`."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> Self:
        """Start serving; return once it is ready."""
        listener = socket.create_server((HOST, self.port))
        self.port = listener.getsockname()[1]
        settings = uvicorn.Config(
            _app(self.sandbox), http=_Protocol, ws="none", lifespan="on", log_config=None, access_log=False,
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        ready = threading.Event()
        self._server = Server(settings, started=ready.set, stopping=lambda: None)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="sandbox", daemon=True
        )
        self._thread.start()
        ready.wait()
        return self

    def stop(self) -> None:
        """Stop serving, and wait until the thread has ended."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join()
        self._server = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def jobs(self) -> list[JobReport]:
        """Return snapshots of all jobs, oldest first."""
        return self.sandbox.jobs.reports()

    def job(self, job_id: str) -> JobReport:
        """Return a snapshot of a job. Raises KeyError."""
        return {job.id: job for job in self.jobs()}[job_id]

    def wait(self, job_id: str, timeout_s: float = 10.0, *, callbacks: bool = True) -> JobReport:
        """Wait until a job is over with all `callbacks`; if that is false, until polls see it done.

        Raises TimeoutError.
        """
        if not self.sandbox.jobs.wait(job_id, timeout_s, callbacks=callbacks):
            raise TimeoutError(f"the sandbox's job {job_id} is not over after {timeout_s} s")
        return self.job(job_id)

    def image_bytes(self, job_id: str, n: int = 0) -> bytes:
        """Return the unbroken bytes of a job's image. Raises KeyError."""
        job = self.sandbox.jobs.get(job_id)
        if job is None or not 0 <= n < len(job.specs):
            raise KeyError(f"{job_id}/{n}")
        picture = self.sandbox.studio.order(job.specs[n], now=True).result()
        return b"".join(pieces(picture, job.faults.bytes if "bytes" in job.faults else None)[1])


class _Protocol(HttpToolsProtocol):
    """Passes the transport to the app, for the faults that break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state: dict[str, Any] = {**self.app_state, "transport": transport}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refuse = api_in_one.refuse if request.url.path.startswith("/api/") else apiframe.refuse
    return refuse(error.status_code, error.detail, headers=error.headers)
