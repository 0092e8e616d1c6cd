"""Serve the sandbox from a thread."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from receiver.http.server import Server
from receiver.sandbox.core import faults
from receiver.sandbox.core.config import Account, SandboxConfig
from receiver.sandbox.core.images import image, pieces, upload
from receiver.sandbox.core.jobs import JobReport
from receiver.sandbox.core.lifecycle import Sandbox
from receiver.sandbox.core.stand_in import StandIn
from receiver.sandbox.gateways import stand_ins

HOST = "127.0.0.1"
MOST_BODY = 32 * 2**20
"""The largest request, in bytes: an image that is uploaded."""


def _app(sandbox: Sandbox, gateways: Sequence[StandIn]) -> Starlette:
    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await sandbox.close()

    async def about(_request: Request) -> Response:
        return JSONResponse(_about(sandbox.config, gateways))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        its = max(gateways, key=lambda gateway: len(gateway.below) * path.startswith(gateway.below))
        return its.refuse(error.status_code, error.detail, error.headers)

    routes = [
        Route("/", about),
        Route("/images/{job}/{name}", image),
        Route("/uploads/{id}", upload),
        Route("/sandbox/jobs", list_jobs),
        *(route for gateway in gateways for route in gateway.routes()),
    ]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: http_error},
        max_body_size=MOST_BODY,
    )
    app.state.sandbox = sandbox
    return app


def _about(config: SandboxConfig, gateways: Iterable[StandIn]) -> dict[str, Any]:
    """Return what `GET /` tells: what this is, and what each gateway has."""
    return {
        "what": "Darkroom's sandbox: it stands in for the image gateways. Nothing here costs anything.",
        **{
            gateway.name: {
                "routes": [f"{_method(route)} {route.path}" for route in gateway.routes()],
                "keys": [account.key for account in config.accounts if account.gateway == gateway.name],
                "faults": dict(gateway.own_faults),
            }
            for gateway in gateways
        },
        "jobs": "GET /sandbox/jobs",
        "faults": dict(faults.KINDS),
    }


def _method(route: Route) -> str:
    return next(method for method in sorted(route.methods or ()) if method != "HEAD")


async def list_jobs(request: Request) -> Response:
    """`GET /sandbox/jobs`: every job with the callbacks that were sent, oldest first."""
    sandbox: Sandbox = request.app.state.sandbox
    return JSONResponse({"jobs": [asdict(job) for job in sandbox.jobs.reports()]})


def accounts_of(gateway: StandIn) -> tuple[Account, ...]:
    """Return the accounts that a gateway has by default: with credits, with few, and inactive."""
    prefix = gateway.key_prefix
    return (
        Account(f"{prefix}_sandbox", gateway.name),
        Account(f"{prefix}_poor", gateway.name, credits=5),
        Account(f"{prefix}_inactive", gateway.name, active=False),
    )


class SandboxServer:
    """A sandbox that serves on a port of its own, in a thread, until it is stopped.

    `port` 0 takes a free one; `gateways` are all that there are, unless some are given. Use it as a context
    manager, or call `start` and `stop`. Raises OSError if the port is taken.
    """

    def __init__(
        self, config: SandboxConfig | None = None, *, port: int = 0, gateways: Sequence[StandIn] = ()
    ) -> None:
        self.gateways = tuple(gateways) or stand_ins()
        config = config or SandboxConfig()
        own = tuple(account for gateway in self.gateways for account in accounts_of(gateway))
        self.config = replace(config, accounts=config.accounts or own)
        self.port = port
        self.sandbox = Sandbox(self.config, {gateway.name: gateway for gateway in self.gateways})
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
            _app(self.sandbox, self.gateways), http=_Protocol, ws="none", lifespan="on", log_config=None,
            access_log=False, timeout_graceful_shutdown=1,
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

    def settings(self) -> dict[str, dict[str, str]]:
        """Return the settings of Darkroom that lead here: by gateway as settings name it, by their names."""
        found = {}
        for gateway in self.gateways:
            account = next(one for one in self.config.accounts if one.gateway == gateway.name)
            own = {"base_url": self.url, "api_key": account.key, **gateway.settings(account, self.url)}
            found[gateway.name.replace("-", "_")] = own
        return found

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
