"""Stand in for API in One, as far as https://apiin.one/docs describes it. Error bodies are a guess."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox import callback_bodies, faults, submissions, validation
from receiver.sandbox.config import Account
from receiver.sandbox.jobs import Event, SandboxJob
from receiver.sandbox.lifecycle import Sandbox
from receiver.sandbox.pictures import Spec, size_of


def refuse(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Build an error response: the HTTP status again as `code`, and no data."""
    return JSONResponse({"code": status, "message": message, "data": None}, status, headers=headers)


async def submit(request: Request, sandbox: Sandbox, account: Account) -> Response:
    """`POST /api/v1/images/generations`."""
    raw = await request.body()
    body = submissions.parse(raw)
    if body is None:
        return refuse(400, "The body is not a JSON object")
    wish = body.pop("sandbox", None)
    try:
        asked = faults.read(request.headers, wish, "api-in-one")
    except faults.BadFault as error:
        return refuse(400, str(error))
    parsed = validation.api_in_one(body)
    if isinstance(parsed, dict):
        return refuse(422, "; ".join(f"{path}: {', '.join(said)}" for path, said in parsed.items()))
    if "failed_in_200" in asked:
        return JSONResponse({"code": 500, "message": asked.message, "data": None})
    received = submissions.Received(request, sandbox, account, raw, asked)
    if (struck := submissions.strike(received, refuse)) is not None:
        return struck
    if sandbox.jobs.balance(account) < parsed.cost:
        return refuse(402, f"Insufficient credits: {parsed.cost} needed")
    job = _job(received, parsed, body)
    data = {"task_id": job.id, "status": "IN_PROGRESS"}
    answer = JSONResponse({"code": 200, "message": "success", "data": data})
    return await submissions.accept(received, job, answer, lambda: _finished(job))


def _finished(job: SandboxJob) -> Response:
    """Build OpenAI's response: https://platform.openai.com/docs/api-reference/images."""
    images = [{"b64_json": uri.partition(",")[2]} for uri in job.inline]
    return JSONResponse({"created": round(job.created_at), "data": images})


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
    body = callback_bodies.envelope(job, event, job.named(), sandbox.config)
    return JSONResponse(callback_bodies.bent(job, body))


def _bearer(request: Request) -> str | None:
    # This gateway documents the bearer form only.
    return submissions.api_key(request) if "x-api-key" not in request.headers else None


def _authenticated(handler: submissions.Handler) -> Callable[[Request], Awaitable[Response]]:
    return submissions.authenticated(handler, "api-in-one", _bearer, refuse)


ROUTES = [
    Route("/api/v1/images/generations", _authenticated(submit), methods=["POST"]),
    Route("/api/v1/tasks/{task_id}", _authenticated(show)),
]


def _job(
    received: submissions.Received, parsed: validation.ApiInOneRequest, body: dict[str, Any]
) -> SandboxJob:
    config = received.sandbox.config
    width, height = size_of(parsed.aspect_ratio, config.image_px)
    seed = "" if parsed.seed is None else str(parsed.seed)
    extension = "jpg" if body.get("output_format") == "jpeg" else "png"
    return received.job(
        parsed,
        id=f"n47{uuid.uuid4().hex[:12]}_{parsed.model}",
        input={name: value for name, value in body.items() if name != "callback_url"},
        specs=tuple(
            Spec(parsed.prompt, parsed.model, seed, n, width, height, extension, config.plain_images)
            for n in range(parsed.num_images)
        ),
        callback_url=parsed.callback_url,
        events=frozenset({"completed", "failed"} | ({"progress"} if received.dialect == "kling" else set())),
        seed=parsed.seed,
    )
