"""API in One, as far as its pages describe it: https://apiin.one/docs. Error bodies are a guess."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox import callback_bodies, faults, submissions, validation
from receiver.sandbox.config import Dialect
from receiver.sandbox.jobs import Event, SandboxJob
from receiver.sandbox.lifecycle import Sandbox
from receiver.sandbox.pictures import Spec, size_of


def refuse(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error: the HTTP status again as `code`, and no data."""
    return JSONResponse({"code": status, "message": message, "data": None}, status, headers=headers)


async def submit(request: Request) -> Response:
    """`POST /api/v1/images/generations`."""
    sandbox: Sandbox = request.app.state.sandbox
    account = submissions.enter(sandbox, "api-in-one", _bearer(request), refuse)
    if isinstance(account, Response):
        return account
    visit = submissions.Visit(sandbox, account, await request.body(), request.headers.get("idempotency-key"))
    sandbox.jobs.seen(visit.key)
    body = submissions.parse(visit.body)
    if body is None:
        return refuse(400, "The body is not a JSON object")
    wish = body.pop("sandbox", None)
    try:
        asked = faults.read(request.headers, wish, "api-in-one")
    except faults.BadFault as error:
        return refuse(400, str(error))
    wanted = validation.api_in_one(body)
    if isinstance(wanted, dict):
        problems = "; ".join(f"{path}: {', '.join(said)}" for path, said in wanted.items())
        return refuse(422, problems)
    if "failed_in_200" in asked:
        return JSONResponse({"code": 500, "message": asked.message, "data": None})
    struck = submissions.strike(visit, asked, refuse)
    return struck or await _take(request, visit, asked, wanted, body)


async def _take(
    request: Request,
    visit: submissions.Visit,
    asked: faults.Asked,
    wanted: validation.ApiInOneRequest,
    body: dict[str, Any],
) -> Response:
    sandbox = visit.sandbox
    cost = validation.CREDITS[wanted.model] * wanted.num_images
    if sandbox.jobs.balance(visit.account) < cost:
        return refuse(402, f"Insufficient credits: {cost} needed")
    job = _job(visit, asked, wanted, submissions.base_url(request), cost, body)
    sandbox.jobs.add(job, visit.digest)
    sandbox.start(job)
    if "early" in asked:
        await job.told.wait()
    return await submissions.answer(visit, asked, _envelope({"task_id": job.id, "status": "IN_PROGRESS"}))


async def show(request: Request) -> Response:
    """`GET /api/v1/tasks/{task_id}`."""
    sandbox: Sandbox = request.app.state.sandbox
    account = submissions.enter(sandbox, "api-in-one", _bearer(request), refuse)
    if isinstance(account, Response):
        return account
    job = sandbox.jobs.get(request.path_params["task_id"], account)
    if job is None:
        return refuse(404, "Task not found")
    if (wrong := submissions.poll_error(sandbox.jobs, job, refuse)) is not None:
        return wrong
    job.renew()
    events: dict[str, Event] = {"COMPLETED": "completed", "FAILED": "failed"}
    event = events.get(job.status, "progress")
    return JSONResponse(callback_bodies.envelope(job, event, job.links(), sandbox.config))


ROUTES = [
    Route("/api/v1/images/generations", submit, methods=["POST"]),
    Route("/api/v1/tasks/{task_id}", show),
]


def _bearer(request: Request) -> str | None:
    # This gateway documents the bearer form only.
    return submissions.api_key(request) if "x-api-key" not in request.headers else None


def _envelope(data: dict[str, Any]) -> Response:
    return JSONResponse({"code": 200, "message": "success", "data": data})


def _job(
    visit: submissions.Visit,
    asked: faults.Asked,
    wanted: validation.ApiInOneRequest,
    base_url: str,
    cost: int,
    body: dict[str, Any],
) -> SandboxJob:
    config = visit.sandbox.config
    width, height = size_of(wanted.aspect_ratio, config.image_px)
    seed = "" if wanted.seed is None else str(wanted.seed)
    dialect: Dialect = asked.dialect or config.dialect
    return SandboxJob(
        id=f"n47{uuid.uuid4().hex[:12]}_{wanted.model}",
        account=visit.account,
        model=wanted.model,
        prompt=wanted.prompt,
        input={name: value for name, value in body.items() if name != "callback_url"},
        specs=tuple(
            Spec(wanted.prompt, wanted.model, seed, n, width, height, plain=config.plain_images)
            for n in range(wanted.num_images)
        ),
        faults=asked,
        base_url=base_url,
        callback_url=wanted.callback_url,
        events=frozenset({"completed", "failed"} | ({"progress"} if dialect == "kling" else set())),
        dialect=dialect,
        cost=cost,
        created_at=config.clock(),
        seed=wanted.seed,
        idempotency_key=visit.key,
        webhook_status="pending" if wanted.callback_url else None,
    )
