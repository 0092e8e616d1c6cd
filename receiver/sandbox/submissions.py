"""What both gateways do at their front desk: who is asking, what they sent, and which faults strike there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from receiver.sandbox.broken_responses import Cut
from receiver.sandbox.config import Account, GatewayName
from receiver.sandbox.faults import Asked
from receiver.sandbox.jobs import Jobs, SandboxJob, body_digest
from receiver.sandbox.lifecycle import Sandbox

Refuse = Callable[..., Response]
"""Makes a gateway's own error answer: `refuse(status, message, headers=None)`."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One submit request: by whom, its bytes, and the name by which a repetition of it is known."""

    sandbox: Sandbox
    account: Account
    body: bytes
    key: str | None

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the body as it came."""
        return body_digest(self.body)

    @property
    def name(self) -> str:
        """The same for the same submission, sent again."""
        return f"{self.account.key} {self.key or self.digest}"


def api_key(request: Request) -> str | None:
    """The key in `X-API-Key` or `Authorization: Bearer`."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else None
    return request.headers.get("x-api-key") or bearer


def enter(sandbox: Sandbox, gateway: GatewayName, key: str | None, refuse: Refuse) -> Account | Response:
    """The account that an API key opens, or the answer to one that opens none."""
    account = sandbox.jobs.account(key, gateway)
    if account is None:
        return refuse(401, "Missing API key" if not key else "Invalid API key")
    return account if account.active else refuse(403, "This API key is inactive")


def parse(body: bytes) -> dict[str, Any] | None:
    """A JSON object, or None."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def strike(visit: Visit, faults: Asked, refuse: Refuse) -> Response | None:
    """The answer of a fault that strikes before the job is taken, if one was asked for."""
    jobs = visit.sandbox.jobs
    times = faults.times or 1
    if "refused" in faults:
        return refuse(400, "The request was refused by the provider")
    if "rate_limited" in faults and jobs.spend("rate_limited", visit.name, times):
        return refuse(429, "Rate limit exceeded", headers={"retry-after": str(faults.retry_after_s)})
    if "unavailable" in faults and jobs.spend("unavailable", visit.name, times):
        return refuse(503, "Service temporarily unavailable")
    if "server_error" in faults and jobs.spend("server_error", visit.name, times):
        return refuse(500, "Internal server error")
    return None


async def answer(visit: Visit, faults: Asked, response: Response) -> Response:
    """The answer to a job that was taken, unless it is to be late, cut, or lost on the way."""
    jobs, times = visit.sandbox.jobs, faults.times or 1
    if "slow_answer" in faults:
        await asyncio.sleep(faults.delay_s)
    if "lost_answer" in faults and jobs.spend("lost_answer", visit.name, times):
        return Cut(media_type="application/json", head=False)
    if "cut_answer" in faults and jobs.spend("cut_answer", visit.name, times):
        whole = bytes(response.body)
        half, status = whole[: len(whole) // 2], response.status_code
        return Cut(half, len(whole), media_type="application/json", status=status)
    return response


def poll_error(jobs: Jobs, job: SandboxJob, refuse: Refuse) -> Response | None:
    """The answer to a poll that is to go wrong, if one was asked for."""
    faults = job.faults
    if "poll_error" in faults and jobs.spend("poll_error", job.id, faults.times or 1):
        headers = {"retry-after": str(faults.retry_after_s)} if faults.status == 429 else None
        return refuse(faults.status or 500, "Something went wrong", headers=headers)
    return None


def base_url(request: Request) -> str:
    """What image links begin with."""
    sandbox: Sandbox = request.app.state.sandbox
    return (sandbox.config.public_url or f"{request.url.scheme}://{request.url.netloc}").rstrip("/")
