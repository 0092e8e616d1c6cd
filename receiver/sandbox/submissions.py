"""Authenticate and parse submissions, for both gateways, and strike with their faults."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from receiver.sandbox.broken_responses import Cut
from receiver.sandbox.config import Account, Dialect, GatewayName
from receiver.sandbox.faults import Asked
from receiver.sandbox.jobs import Jobs, SandboxJob
from receiver.sandbox.lifecycle import Sandbox
from receiver.sandbox.validation import ApiframeRequest, ApiInOneRequest

Refuse = Callable[..., Response]
"""Builds a gateway's own error response: `refuse(status, message, headers=None)`."""


Handler = Callable[[Request, Sandbox, Account], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Received:
    """One submit request, with its account, its bytes and the faults that it asks for."""

    request: Request
    sandbox: Sandbox
    account: Account
    body: bytes
    asked: Asked

    @property
    def key(self) -> str | None:
        """The idempotency key."""
        return self.request.headers.get("idempotency-key")

    @property
    def base_url(self) -> str:
        """The base URL of image links."""
        url = self.request.url
        return (self.sandbox.config.public_url or f"{url.scheme}://{url.netloc}").rstrip("/")

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the raw body."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def name(self) -> str:
        """The same for retries of the same submission."""
        return f"{self.account.key} {self.key or self.digest}"

    @property
    def dialect(self) -> Dialect:
        """The shape of API in One's callbacks."""
        return self.asked.dialect or self.sandbox.config.dialect

    def job(self, parsed: ApiframeRequest | ApiInOneRequest, **more: Any) -> SandboxJob:
        """Build the job that was asked for; `more` are the fields that differ by gateway."""
        return SandboxJob(
            account=self.account,
            model=parsed.model,
            prompt=parsed.prompt,
            faults=self.asked,
            base_url=self.base_url,
            dialect=self.dialect,
            cost=parsed.cost,
            created_at=self.sandbox.config.clock(),
            idempotency_key=self.key,
            webhook_status="pending" if more["callback_url"] else None,
            **more,
        )


def api_key(request: Request) -> str | None:
    """Return the key in `X-API-Key` or `Authorization: Bearer`."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else None
    return request.headers.get("x-api-key") or bearer


def authenticated(
    handler: Handler, gateway: GatewayName, key_of: Callable[[Request], str | None], refuse: Refuse
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler: authenticate its requests by API key."""

    async def handle(request: Request) -> Response:
        sandbox: Sandbox = request.app.state.sandbox
        key = key_of(request)
        account = sandbox.jobs.account(key, gateway)
        if account is None:
            return refuse(401, "Missing API key" if not key else "Invalid API key")
        if not account.active:
            return refuse(403, "This API key is inactive")
        return await handler(request, sandbox, account)

    return handle


def parse(body: bytes) -> dict[str, Any] | None:
    """Parse a JSON object; None if it is not one."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def strike(received: Received, refuse: Refuse) -> Response | None:
    """Return the response of a fault that strikes before the job is accepted, if there is one."""
    faults, jobs = received.asked, received.sandbox.jobs
    times = faults.times or 1
    if "refused" in faults:
        return refuse(400, "The request was refused by the provider")
    if "rate_limited" in faults and jobs.spend("rate_limited", received.name, times):
        return refuse(429, "Rate limit exceeded", headers={"retry-after": str(faults.retry_after_s)})
    if "unavailable" in faults and jobs.spend("unavailable", received.name, times):
        return refuse(503, "Service temporarily unavailable")
    if "server_error" in faults and jobs.spend("server_error", received.name, times):
        return refuse(500, "Internal server error")
    return None


async def accept(
    received: Received, job: SandboxJob, response: Response, finished: Callable[[], Response]
) -> Response:
    """Start a job, and return the response to its submission: `finished()` if that is to have the images."""
    received.sandbox.jobs.add(job, received.digest)
    received.sandbox.start(job)
    if {"early", "inline_answer"} & set(received.asked.fault):
        await job.callbacks_sent.wait()
    return await respond(received, finished() if "inline_answer" in received.asked else response)


async def respond(received: Received, response: Response) -> Response:
    """Return the response for an accepted job; late, cut or lost if a fault says so."""
    faults, jobs = received.asked, received.sandbox.jobs
    times = faults.times or 1
    if "slow_answer" in faults:
        await asyncio.sleep(faults.delay_s)
    if "lost_answer" in faults and jobs.spend("lost_answer", received.name, times):
        return Cut(media_type="application/json", head=False)
    if "cut_answer" in faults and jobs.spend("cut_answer", received.name, times):
        whole = bytes(response.body)
        half, status = whole[: len(whole) // 2], response.status_code
        return Cut(half, len(whole), media_type="application/json", status=status)
    return response


def poll_error(jobs: Jobs, job: SandboxJob, refuse: Refuse) -> Response | None:
    """Return the error response of a poll, if a fault asks for one."""
    faults = job.faults
    if "poll_error" in faults and jobs.spend("poll_error", job.id, faults.times or 1):
        headers = {"retry-after": str(faults.retry_after_s)} if faults.status == 429 else None
        return refuse(faults.status or 500, "Something went wrong", headers=headers)
    if "odd_poll" in faults and (faults.times is None or jobs.spend("odd_poll", job.id, faults.times)):
        return HTMLResponse("<!doctype html><title>Welcome</title>")
    return None
