"""The base class of the stand-ins: each is one gateway's routes, validation, answers, callbacks and errors.

A submission goes through the same steps at each of them: the key, the body, the faults that it asks for, the
gateway's own validation, the faults that strike, the credits, the answer.
"""

import asyncio
import hashlib
import io
import json
import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import httpx
from PIL import Image
from pydantic import AfterValidator, BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox.core import faults
from receiver.sandbox.core.broken_responses import Cut
from receiver.sandbox.core.callbacks import Body, Caller, bent
from receiver.sandbox.core.config import Account
from receiver.sandbox.core.faults import Asked
from receiver.sandbox.core.jobs import Event, Jobs, SandboxJob, State
from receiver.sandbox.core.lifecycle import Sandbox
from receiver.sandbox.core.pictures import Spec, size_of

Details = dict[str, list[str]]
"""Validation errors by JSON path."""
STATE_AFTER: dict[Event, State] = {
    "progress": "PROCESSING",
    "completed": "COMPLETED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
}
"""What a callback says of its job; by a fault one of a job that is over says that it is running."""
Handler = Callable[[Request, Sandbox, Account], Awaitable[Response]]


def _uri(text: str) -> str:
    if not re.match(r"https?://[^/\s]+", text):
        raise ValueError("Invalid url")
    return text


Uri = Annotated[str, AfterValidator(_uri)]


@dataclass(frozen=True, slots=True)
class Received:
    """One submit request, with its account, its body and the faults that it asks for."""

    request: Request
    sandbox: Sandbox
    account: Account
    raw: bytes
    body: dict[str, Any]
    """The body as an object, without what it asks of the sandbox."""
    asked: Asked

    @property
    def key(self) -> str | None:
        """The idempotency key."""
        return self.request.headers.get("idempotency-key")

    @property
    def base_url(self) -> str:
        """The base URL of image links, and of the gateway's own routes."""
        url = self.request.url
        return (self.sandbox.config.public_url or f"{url.scheme}://{url.netloc}").rstrip("/")

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the raw body."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def name(self) -> str:
        """The same for retries of the same submission."""
        return f"{self.account.key} {self.key or self.digest}"

    def seed(self, bits: int = 31) -> int:
        """Return a seed that the gateway makes, where it was given none; the same for equal bodies."""
        return int(self.digest, 16) & (1 << bits) - 1

    def shaped(self, aspect_ratio: str, side: int = 1) -> tuple[int, int]:
        """Return width and height for an aspect ratio, of a square with `side` times the usual width."""
        return size_of(aspect_ratio, self.sandbox.config.image_px * side)

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height where the real gateway makes so many pixels; small sandboxes make fewer."""
        px = self.sandbox.config.image_px
        return max(16, width * px // 1024), max(16, height * px // 1024)

    def specs(
        self,
        prompt: str,
        model: str,
        size: tuple[int, int],
        *,
        seed: object = None,
        count: int = 1,
        extension: str = "png",
    ) -> tuple[Spec, ...]:
        """Return the images to draw, of so many pixels."""
        text, plain = "" if seed is None else str(seed), self.sandbox.config.plain_images
        return tuple(Spec(prompt, model, text, n, *size, extension, plain) for n in range(count))

    def prompt(self, given: str | None, model: str) -> str:
        """Return what to draw, where a prompt may be left out for models that start from an image."""
        return given or f"What {model} makes of an image"

    async def fetch(self, url: str) -> bytes | None:
        """Return the image of a URL, of a data URI or in base64; None if there is none."""
        try:
            data = await self.sandbox.sender.fetch(url)
            Image.open(io.BytesIO(data))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
            return None
        return data

    def job(self, *, events: Iterable[str] = ("completed", "failed"), **fields: Any) -> SandboxJob:
        """Build the job that was asked for; `fields` are those of a SandboxJob that differ by gateway."""
        return SandboxJob(
            account=self.account,
            faults=self.asked,
            base_url=self.base_url,
            created_at=self.sandbox.config.clock(),
            idempotency_key=self.key,
            webhook_status="pending" if fields["callback_url"] else None,
            events=frozenset(events),
            **fields,
        )


@dataclass(frozen=True)
class StandIn(Caller):
    """One gateway of the sandbox. It holds its options and no state; jobs are the sandbox's."""

    key_prefix: ClassVar[str]
    """What the API keys of its default accounts begin with: `afk`."""
    below: ClassVar[str] = "/"
    """Where its routes begin: unknown paths there get its own kind of 404."""
    own_faults: ClassVar[dict[str, str]] = {}
    """Its faults beside those that every gateway has, each with what it does."""
    key_header: ClassVar[str] = "authorization"
    key_scheme: ClassVar[str] = "Bearer "
    """What precedes the API key in that header."""
    idempotent: ClassVar[bool] = False
    """Whether it knows the header `Idempotency-Key`."""
    not_json: ClassVar[str] = "The body is not a JSON object"
    unknown_job: ClassVar[str] = "Not found"
    image_fields: ClassVar[frozenset[str]] = frozenset()
    """Parameters that hold images to start from, one or a list; at the top of the body or one object down."""
    model: ClassVar[str]
    """A model to try it with."""

    @abstractmethod
    def routes(self) -> list[Route]:
        """Return its routes, made with `route`."""

    @abstractmethod
    def error(self, status: int, message: str) -> Body:
        """Build the body of an error response."""

    @abstractmethod
    async def read(self, received: Received) -> SandboxJob | Response:
        """Validate a submission; return the job that it asks for, or the gateway's refusal."""

    @abstractmethod
    def accepted(self, job: SandboxJob) -> Response:
        """Build the response to an accepted submission."""

    def report(self, job: SandboxJob, state: State, links: list[Any]) -> Body:
        """Build what is told of a job, where callbacks and polls are alike."""
        raise NotImplementedError(f"{self.name} {job.id} {state} {links}")

    def callback(self, job: SandboxJob, event: Event, links: list[Any]) -> Body:
        """Build the body of a callback."""
        return self.report(job, STATE_AFTER[event], links)

    def polled(self, sandbox: Sandbox, job: SandboxJob) -> Body:  # noqa: ARG002 - a default
        """Build the body of the response to a poll."""
        return self.report(job, job.status, job.named())

    def refuse(
        self, status: int, message: str, headers: Mapping[str, str] | None = None, **more: object
    ) -> Response:
        """Build an error response; `more` is told beside what errors have."""
        return JSONResponse({**self.error(status, message), **more}, status, headers=headers)

    def finished(self, sandbox: Sandbox, job: SandboxJob) -> Response:
        """Build the response to a submission that is to have the images."""
        return JSONResponse(self.polled(sandbox, job))

    def invalid(self, details: Details) -> Response:
        """Build the response to a body that does not pass validation."""
        return self.refuse(422, "; ".join(f"{path}: {', '.join(said)}" for path, said in details.items()))

    def bad_fault(self, message: str) -> Response:
        """Build the response to a submission that asks for a fault that there is not."""
        return self.refuse(400, message)

    def too_poor(self, cost: int, left: int) -> Response:  # noqa: ARG002 - a default
        """Build the response to a submission that the account cannot pay."""
        return self.refuse(402, f"Insufficient credits: {cost} needed")

    def stamp(self) -> dict[str, str]:
        """Return headers of every response."""
        return {}

    def settings(self, account: Account, url: str) -> dict[str, str]:  # noqa: ARG002 - a default
        """Return what Darkroom's settings for this gateway need beside address and API key.

        `url` is that address.
        """
        return {}

    def params(self) -> dict[str, Any]:
        """Return what a job of that model needs, beside a prompt, as `params` of a submission to Darkroom."""
        return {}

    def key_of(self, request: Request) -> str | None:
        """Return the API key of a request."""
        value, scheme = request.headers.get(self.key_header, ""), self.key_scheme
        return value[len(scheme) :].strip() if value.lower().startswith(scheme.lower()) else None

    async def decode(self, received: Request, raw: bytes) -> dict[str, Any] | None:  # noqa: ARG002 - a default
        """Return the body as an object; None if it is not one."""
        return json_object(raw)

    def route(self, path: str, handler: Handler, *methods: str) -> Route:
        """Return a route that authenticates by API key; its method is GET unless others are named."""

        async def handle(request: Request) -> Response:
            sandbox: Sandbox = request.app.state.sandbox
            key = self.key_of(request)
            account = sandbox.jobs.account(key, self.name)
            if account is None:
                response = self.refuse(401, "Invalid API key" if key else "Missing API key")
            elif not account.active:
                response = self.refuse(403, "This API key is inactive")
            else:
                response = await handler(request, sandbox, account)
            response.headers.update(self.stamp())
            return response

        return Route(path, handle, methods=list(methods or ("GET",)))

    async def submit(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        """Accept a job, or refuse it."""
        raw = await request.body()
        body = await self.decode(request, raw)
        if body is None:
            return self.refuse(400, self.not_json)
        wish = _take_wish(body)
        try:
            asked = faults.read(request.headers, wish, faults.KINDS | self.own_faults)
        except faults.BadFault as error:
            return self.bad_fault(str(error))
        received = Received(request, sandbox, account, raw, body, asked)
        job = await self.read(received)
        if isinstance(job, Response):
            return job
        return (
            await self._lacking(received, job) or self._struck(received) or await self._accept(received, job)
        )

    async def _lacking(self, received: Received, job: SandboxJob) -> Response | None:
        """Load the images that a job starts from; return the response to one that cannot be loaded."""
        for url in images_in(received.body, self.image_fields):
            data = await received.fetch(url)
            if data is None:
                return self.invalid({"image": ["The image could not be loaded"]})
            job.inputs += (hashlib.sha256(data).hexdigest(),)
        return None

    async def poll(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        """Return what became of the job that the path names by `id`."""
        return self.told(request.path_params["id"], sandbox, account)

    def told(self, job_id: str, sandbox: Sandbox, account: Account) -> Response:
        """Return what became of a job."""
        job = self.find(job_id, sandbox, account)
        return job if isinstance(job, Response) else JSONResponse(bent(job, self.polled(sandbox, job)))

    def find(self, job_id: str, sandbox: Sandbox, account: Account) -> SandboxJob | Response:
        """Return a job that is polled, or the response that tells of an unknown one or of a fault."""
        job = sandbox.jobs.get(job_id, account)
        if job is None:
            return self.refuse(404, self.unknown_job)
        if (wrong := self._poll_error(sandbox.jobs, job)) is not None:
            return wrong
        job.renew()
        return job

    def _struck(self, received: Received) -> Response | None:
        """Return the response of a fault that strikes before the job is accepted, if there is one."""
        asked, jobs = received.asked, received.sandbox.jobs
        times = asked.times or 1
        if "refused" in asked:
            return self.refuse(400, "The request was refused by the provider")
        if "rate_limited" in asked and jobs.spend("rate_limited", received.name, times):
            return self.refuse(429, "Rate limit exceeded", {"retry-after": str(asked.retry_after_s)})
        if "unavailable" in asked and jobs.spend("unavailable", received.name, times):
            return self.refuse(503, "Service temporarily unavailable")
        if "server_error" in asked and jobs.spend("server_error", received.name, times):
            return self.refuse(500, "Internal server error")
        return None

    async def _accept(self, received: Received, job: SandboxJob) -> Response:
        jobs = received.sandbox.jobs
        if self.idempotent and (earlier := jobs.replay(received.account, received.key)) is not None:
            if earlier[0] != received.digest:
                return self.refuse(409, "This idempotency key was used with another body")
            return await _respond(received, self.accepted(earlier[1]))
        if (left := jobs.balance(received.account)) < job.cost:
            return self.too_poor(job.cost, left)
        answer = self.accepted(job)
        jobs.add(job, received.digest)
        received.sandbox.start(job)
        if {"early", "inline_answer"} & set(received.asked.fault):
            await job.callbacks_sent.wait()
        if "inline_answer" in received.asked:
            answer = self.finished(received.sandbox, job)
        return await _respond(received, answer)

    def _poll_error(self, jobs: Jobs, job: SandboxJob) -> Response | None:
        """Return the error response of a poll, if a fault asks for one."""
        asked = job.faults
        if "poll_error" in asked and jobs.spend("poll_error", job.id, asked.times or 1):
            headers = {"retry-after": str(asked.retry_after_s)} if asked.status == 429 else None
            return self.refuse(asked.status or 500, "Something went wrong", headers)
        if "odd_poll" in asked and (asked.times is None or jobs.spend("odd_poll", job.id, asked.times)):
            return HTMLResponse("<!doctype html><title>Welcome</title>")
        return None


def problems(shape: type[BaseModel], value: dict[str, Any], prefix: str = "") -> Details:
    """Return what is wrong with an object."""
    try:
        shape.model_validate(value)
    except ValidationError as error:
        details: Details = {}
        for problem in error.errors():
            path = prefix + ".".join(str(part) for part in problem["loc"])
            details.setdefault(path, []).append(problem["msg"])
        return details
    return {}


def lacking(body: dict[str, Any], prompt: str, names: Set[str]) -> Details:
    """Return what is wrong with a body that has neither a prompt nor an image to start from."""
    blocks = [body, *(block for block in body.values() if isinstance(block, dict))]
    given = any(block.get(prompt) for block in blocks) or images_in(body, names)
    return {} if given else {prompt: ["Field required"]}


def images_in(body: dict[str, Any], names: Set[str]) -> list[str]:
    """Return what these parameters hold."""
    blocks = [body, *(block for block in body.values() if isinstance(block, dict))]
    values = [block[name] for block in blocks for name in block if name in names]
    return [
        each
        for value in values
        for each in (value if isinstance(value, list) else [value])
        if isinstance(each, str)
    ]


def fastapi_errors(details: Details) -> Body:
    """Return the errors as FastAPI tells them, which some gateways are made with."""
    return {
        "detail": [
            {"loc": ["body", *path.split(".")], "msg": said, "type": "value_error"}
            for path, each in details.items()
            for said in each
        ]
    }


def json_object(body: bytes) -> dict[str, Any] | None:
    """Parse a JSON object; None if it is not one."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _take_wish(body: dict[str, Any]) -> object:
    """Take the sandbox's own parameter out of a body, or out of an object in it."""
    blocks = [body, *(block for block in body.values() if isinstance(block, dict))]
    return next((block.pop("sandbox") for block in blocks if "sandbox" in block), None)


async def _respond(received: Received, response: Response) -> Response:
    """Return the response for an accepted job; late, cut or lost if a fault says so."""
    asked, jobs = received.asked, received.sandbox.jobs
    times = asked.times or 1
    if "slow_answer" in asked:
        await asyncio.sleep(asked.delay_s)
    if "lost_answer" in asked and jobs.spend("lost_answer", received.name, times):
        return Cut(media_type="application/json", head=False)
    if "cut_answer" in asked and jobs.spend("cut_answer", received.name, times):
        whole = bytes(response.body)
        half, status = whole[: len(whole) // 2], response.status_code
        return Cut(half, len(whole), media_type="application/json", status=status)
    return response
