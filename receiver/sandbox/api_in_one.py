"""Stand in for API in One, as far as https://apiin.one/docs describes it. Error bodies are a guess."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox import callback_bodies, faults, submissions, validation
from receiver.sandbox.config import Account, Dialect
from receiver.sandbox.jobs import Event, SandboxJob
from receiver.sandbox.lifecycle import Sandbox
from receiver.sandbox.pictures import Spec, size_of


def refuse(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Build an error response: the HTTP status again as `code`, and no data."""
    return JSONResponse({"code": status, "message": message, "data": None}, status, headers=headers)


async def submit(request: Request, sandbox: Sandbox, account: Account) -> Response:
    """`POST /api/v1/images/generations`."""
    received = submissions.Received(request, sandbox, account, await request.body())
    sandbox.jobs.seen(received.key)
    body = submissions.parse(received.body)
    if body is None:
        return refuse(400, "The body is not a JSON object")
    wish = body.pop("sandbox", None)
    try:
        asked = faults.read(request.headers, wish, "api-in-one")
    except faults.BadFault as error:
        return refuse(400, str(error))
    parsed = validation.api_in_one(body)
    if isinstance(parsed, dict):
        problems = "; ".join(f"{path}: {', '.join(said)}" for path, said in parsed.items())
        return refuse(422, problems)
    if "failed_in_200" in asked:
        return JSONResponse({"code": 500, "message": asked.message, "data": None})
    struck = submissions.strike(received, asked, refuse)
    return struck or await _accept(received, asked, parsed, body)


async def _accept(
    received: submissions.Received,
    asked: faults.Asked,
    parsed: validation.ApiInOneRequest,
    body: dict[str, Any],
) -> Response:
    sandbox = received.sandbox
    cost = validation.CREDITS[parsed.model] * parsed.num_images
    if sandbox.jobs.balance(received.account) < cost:
        return refuse(402, f"Insufficient credits: {cost} needed")
    job = _job(received, asked, parsed, cost, body)
    sandbox.jobs.add(job, received.digest)
    sandbox.start(job)
    if "early" in asked:
        await job.told.wait()
    return await submissions.respond(received, asked, _envelope({"task_id": job.id, "status": "IN_PROGRESS"}))


async def show(request: Request, sandbox: Sandbox, account: Account) -> Response:
    """`GET /api/v1/tasks/{task_id}`."""
    job = sandbox.jobs.get(request.path_params["task_id"], account)
    if job is None:
        return refuse(404, "Task not found")
    if (wrong := submissions.poll_error(sandbox.jobs, job, refuse)) is not None:
        return wrong
    job.renew()
    events: dict[str, Event] = {"COMPLETED": "completed", "FAILED": "failed"}
    event = events.get(job.status, "progress")
    return JSONResponse(callback_bodies.envelope(job, event, job.links(), sandbox.config))


def _bearer(request: Request) -> str | None:
    # This gateway documents the bearer form only.
    return submissions.api_key(request) if "x-api-key" not in request.headers else None


def _authenticated(handler: submissions.Handler) -> Callable[[Request], Awaitable[Response]]:
    return submissions.authenticated(handler, "api-in-one", _bearer, refuse)


ROUTES = [
    Route("/api/v1/images/generations", _authenticated(submit), methods=["POST"]),
    Route("/api/v1/tasks/{task_id}", _authenticated(show)),
]


def _envelope(data: dict[str, Any]) -> Response:
    return JSONResponse({"code": 200, "message": "success", "data": data})


def _job(
    received: submissions.Received,
    asked: faults.Asked,
    parsed: validation.ApiInOneRequest,
    cost: int,
    body: dict[str, Any],
) -> SandboxJob:
    config = received.sandbox.config
    width, height = size_of(parsed.aspect_ratio, config.image_px)
    seed = "" if parsed.seed is None else str(parsed.seed)
    dialect: Dialect = asked.dialect or config.dialect
    return SandboxJob(
        id=f"n47{uuid.uuid4().hex[:12]}_{parsed.model}",
        account=received.account,
        model=parsed.model,
        prompt=parsed.prompt,
        input={name: value for name, value in body.items() if name != "callback_url"},
        specs=tuple(
            Spec(parsed.prompt, parsed.model, seed, n, width, height, plain=config.plain_images)
            for n in range(parsed.num_images)
        ),
        faults=asked,
        base_url=received.base_url,
        callback_url=parsed.callback_url,
        events=frozenset({"completed", "failed"} | ({"progress"} if dialect == "kling" else set())),
        dialect=dialect,
        cost=cost,
        created_at=config.clock(),
        seed=parsed.seed,
        idempotency_key=received.key,
        webhook_status="pending" if parsed.callback_url else None,
    )
