"""Stand in for Apiframe's API v2, by its OpenAPI file and https://docs-v2.apiframe.ai."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox import callback_bodies, faults, submissions, validation
from receiver.sandbox.config import Account
from receiver.sandbox.images import expired
from receiver.sandbox.jobs import SandboxJob, iso
from receiver.sandbox.lifecycle import Sandbox
from receiver.sandbox.pictures import Spec, size_of


def refuse(status: int, message: str, headers: Mapping[str, str] | None = None, **more: object) -> Response:
    """Build an error response of Apiframe."""
    return JSONResponse({"error": message, **more}, status, headers=headers)


def authenticated(handler: submissions.Handler) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler: authenticate, and add a request id to every response."""
    inner = submissions.authenticated(handler, "apiframe", submissions.api_key, refuse)

    async def handle(request: Request) -> Response:
        response = await inner(request)
        response.headers["x-request-id"] = str(uuid.uuid4())
        return response

    return handle


async def submit(request: Request, sandbox: Sandbox, account: Account) -> Response:
    """`POST /v2/images/generate`."""
    raw = await request.body()
    body = submissions.parse(raw)
    if body is None:
        return refuse(400, "Invalid JSON")
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= 255:
        return refuse(400, "Validation failed", details={"Idempotency-Key": ["At most 255 characters"]})
    body, wish = _extract_wish(body)
    try:
        asked = faults.read(request.headers, wish, "apiframe")
    except faults.BadFault as error:
        return refuse(400, "Validation failed", details={"sandbox": [str(error)]})
    read = validation.apiframe(body)
    if isinstance(read, dict):
        return refuse(400, "Validation failed", details=read)
    received = submissions.Received(request, sandbox, account, raw, asked)
    return submissions.strike(received, refuse) or await _accept(received, *read)


async def _accept(
    received: submissions.Received, parsed: validation.ApiframeRequest, params: dict[str, Any]
) -> Response:
    jobs = received.sandbox.jobs
    earlier = jobs.replay(received.account, received.key)
    if earlier is not None:
        digest, job = earlier
        if digest != received.digest:
            return refuse(409, "This idempotency key was used with another body")
        return await submissions.respond(received, _accepted(job))
    if (left := jobs.balance(received.account)) < parsed.cost:
        return refuse(402, "Insufficient credits", creditsRequired=parsed.cost, creditsAvailable=left)
    job = _job(received, parsed, params)
    return await submissions.accept(received, job, _accepted(job), lambda: _finished(received.sandbox, job))


async def show(request: Request, sandbox: Sandbox, account: Account) -> Response:
    """`GET /v2/jobs/{id}`."""
    try:
        job_id = str(uuid.UUID(request.path_params["id"]))
    except ValueError:
        return refuse(400, "Invalid job id")
    job = sandbox.jobs.get(job_id, account)
    if job is None:
        return refuse(404, "Job not found")
    if (wrong := submissions.poll_error(sandbox.jobs, job, refuse)) is not None:
        return wrong
    job.renew()
    return JSONResponse(callback_bodies.bent(job, {**_shown(sandbox, job), "input": job.input}))


async def page(request: Request, sandbox: Sandbox, account: Account) -> Response:
    """`GET /v2/jobs`, newest first."""
    query = request.query_params
    limit, status = query.get("limit", "20"), query.get("status")
    states = ("QUEUED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED")
    if not (limit.isdecimal() and 1 <= int(limit) <= 100):
        return refuse(400, "Validation failed", details={"limit": ["A number from 1 to 100"]})
    if status is not None and status not in states:
        return refuse(400, "Validation failed", details={"status": [f"One of {', '.join(states)}"]})
    if query.get("scope") == "team":
        return refuse(403, "Only admins may see the whole team's jobs")
    wanted = query.get("model"), query.get("search")
    found = [job for job in sandbox.jobs.latest(account) if _fits(job, status, *wanted)]
    cursor = query.get("cursor")
    if cursor is not None:
        place = next((n for n, job in enumerate(found, 1) if job.id == cursor), None)
        if place is None:
            return refuse(400, "Validation failed", details={"cursor": ["Invalid cursor"]})
        found = found[place:]
    shown = found[: int(limit)]
    more = len(found) > len(shown)
    return JSONResponse(
        {
            "jobs": [callback_bodies.bent(job, _shown(sandbox, job)) for job in shown],
            "nextCursor": shown[-1].id if more else None,
            "hasMore": more,
        }
    )


ROUTES = [
    Route("/v2/images/generate", authenticated(submit), methods=["POST"]),
    Route("/v2/jobs", authenticated(page)),
    Route("/v2/jobs/{id}", authenticated(show)),
]


def _extract_wish(body: dict[str, Any]) -> tuple[dict[str, Any], object]:
    """Extract the sandbox's own parameter from the model's parameter block."""
    for name, block in body.items():
        if name.endswith("Params") and isinstance(block, dict) and "sandbox" in block:
            rest = {key: value for key, value in block.items() if key != "sandbox"}
            return {**body, name: rest}, block["sandbox"]
    return body, None


def _job(
    received: submissions.Received, parsed: validation.ApiframeRequest, params: dict[str, Any]
) -> SandboxJob:
    config = received.sandbox.config
    side = config.image_px * (2 if params.get("image_size") == "2K" else 1)
    width, height = size_of(str(params.get("aspect_ratio", "1:1")), side)
    png = params.get("output_format") == "png" or "bytes" in received.asked
    seed = "" if params.get("seed") is None else str(params["seed"])
    extension = "png" if png else "jpg"
    spec = Spec(parsed.prompt, parsed.model, seed, 0, width, height, extension, config.plain_images)
    return received.job(
        parsed,
        id=str(uuid.uuid4()),
        input={"prompt": parsed.prompt, **params},
        specs=(spec,),
        callback_url=parsed.webhook_url,
        events=frozenset(parsed.webhook_events),
    )


def _accepted(job: SandboxJob) -> Response:
    return JSONResponse({"jobId": job.id, "status": job.status}, 202)


def _finished(sandbox: Sandbox, job: SandboxJob) -> Response:
    return JSONResponse({**_shown(sandbox, job), "jobId": job.id})


def _shown(sandbox: Sandbox, job: SandboxJob) -> dict[str, Any]:
    done = job.status == "COMPLETED"
    return {
        "id": job.id,
        "status": job.status,
        "model": job.model,
        "progress": job.progress,
        "result": callback_bodies.result(job.named(), sandbox.config) if done else None,
        "error": job.error,
        "creditCost": job.cost,
        "webhookStatus": job.webhook_status,
        "createdAt": iso(job.created_at),
        "completedAt": job.done_at,
        "expired": expired(sandbox, job),
    }


def _fits(job: SandboxJob, status: str | None, model: str | None, search: str | None) -> bool:
    return status in (None, job.status) and model in (None, job.model) and search in (None, job.id)
