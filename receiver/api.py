"""The JSON API: submit, find, and look after jobs and outputs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from receiver.access import Access
from receiver.bodies import read_body
from receiver.errors import InvalidRequest, NoSuchThing, Unauthorized
from receiver.limits import Limits
from receiver.models import books_view, job_view, output_view, read_submit, timeline
from receiver.submit import Submitter
from receiver.waiting import Waiters
from storage.books import total
from storage.ledger import Ledger
from storage.objects import ObjectStore
from storage.records import Clock, Status
from storage.search import Found, Page, Search, Wanted

MAX_BODY = 1024 * 1024
MAX_WAIT_S = 60
MAX_WORDS = 32
RECHECK_S = 1.0
"""How often a waiting request looks by itself: another process may have moved the job."""

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Api:
    """The routes under `/v1`."""

    ledger: Ledger
    search: Search
    store: ObjectStore
    submitter: Submitter
    access: Access
    limits: Limits
    waiters: Waiters
    queued: Callable[[], None]
    """Called when a job was taken in."""
    link_lifetime_s: int
    clock: Clock

    def routes(self) -> list[Route]:
        """The routes of this part."""
        return [
            Route("/v1/jobs", self._for("submit", self.submit), methods=["POST"]),
            Route("/v1/jobs", self._for("read", self.jobs)),
            Route("/v1/jobs/{id}", self._for("read", self.job)),
            Route("/v1/outputs", self._for("read", self.outputs)),
            Route("/v1/outputs/{id}", self._for("read", self.output)),
            Route("/v1/outputs/{id}/image", self._for("read", self.image)),
            Route("/v1/books", self._for("read", self.books)),
        ]

    async def submit(self, request: Request) -> Response:
        """Take a job in: 202 and the job; 200 if the same came before under its Idempotency-Key."""
        body = read_submit(await read_body(request, MAX_BODY, within_s=self.limits.body_timeout_s))
        key = request.headers.get("idempotency-key")
        if key is not None and not 1 <= len(key) <= 255:
            raise InvalidRequest([{"field": "Idempotency-Key", "message": "must have 1 to 255 characters"}])
        job, new = await run_in_threadpool(
            self.submitter.accept,
            body.gateway,
            body.request(),
            ignore_unsupported=body.unsupported == "ignore",
            idempotency_key=key,
        )
        if new:
            self.queued()
        view = await run_in_threadpool(self._job_view, job.id)
        return JSONResponse(view, 202 if new else 200, {"location": f"/v1/jobs/{job.id}"})

    async def jobs(self, request: Request) -> Response:
        """List jobs, newest first."""
        wanted, limit, cursor = _wanted(request, JOB_FILTERS)
        page = await run_in_threadpool(self.search.jobs, wanted, limit=limit, cursor=cursor)
        ids = await run_in_threadpool(self.search.output_ids, [job.id for job in page.rows])
        return _listed(request, "jobs", [job_view(job, ids[job.id]) for job in page.rows], page)

    async def job(self, request: Request) -> Response:
        """Show one job; with `?wait=` seconds, once it is terminal or that time has passed."""
        job_id = _id(request)
        wait = _number(request, "wait", 0, most=MAX_WAIT_S)
        if wait:
            await self._await_terminal(job_id, wait)
        return JSONResponse(await run_in_threadpool(self._job_view, job_id))

    async def outputs(self, request: Request) -> Response:
        """Search outputs, those of the newest job first."""
        wanted, limit, cursor = _wanted(request, OUTPUT_FILTERS)
        try:
            page = await run_in_threadpool(self.search.outputs, wanted, limit=limit, cursor=cursor)
        except ValueError:
            raise InvalidRequest([{"field": "cursor", "message": "is not one of ours"}]) from None
        return _listed(request, "outputs", [output_view(found) for found in page.rows], page)

    async def output(self, request: Request) -> Response:
        """Show one output, with everything that made it."""
        found = await self._find(request)
        return JSONResponse(output_view(found) | {"job": job_view(found.job, [found.output.id])})

    async def image(self, request: Request) -> Response:
        """Lead to an output's bytes: a fresh presigned link, or with `?stream=1` the bytes themselves."""
        output = (await self._find(request)).output
        if request.query_params.get("stream") not in {"1", "true"}:
            name = f"{output.id}.{output.key.rpartition('.')[2]}"
            # Apart, because it may have to ask somebody for fresh credentials.
            link = await run_in_threadpool(
                self.store.presign,
                output.key,
                expires_s=self.link_lifetime_s,
                filename=name,
                content_type=output.media_type,
            )
            return RedirectResponse(link, 307)
        opened = ExitStack()
        stream = await run_in_threadpool(opened.enter_context, self.store.stream(output.key))
        headers = {"content-length": str(stream.length), "etag": f'"{output.sha256}"'}
        return StreamingResponse(
            _closing(stream.chunks, opened), media_type=output.media_type, headers=headers
        )

    async def books(self, _request: Request) -> Response:
        """Show the books."""
        pages = await run_in_threadpool(self.ledger.books)
        return JSONResponse(books_view(total(list(pages.values())), pages, self.clock()))

    def _for(self, scope: str, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            self._admit(request, scope)
            return await handler(request)

        return guarded

    def _admit(self, request: Request, scope: str) -> None:
        client = request.client.host if request.client else None
        try:
            caller = self.access.who(request.headers, client=client)
        except Unauthorized:
            self.limits.stranger(request)
            raise
        if not self.access.open:
            self.limits.api(caller.name)
        caller.must_reach(scope)

    async def _await_terminal(self, job_id: str, wait_s: float) -> None:
        deadline = monotonic() + wait_s
        with self.waiters.waiting(job_id) as moved:
            while not (await run_in_threadpool(self.ledger.job, job_id)).status.terminal:
                left = deadline - monotonic()
                if left <= 0 or self.waiters.closed:
                    return
                try:
                    await asyncio.wait_for(moved.wait(), min(left, RECHECK_S))
                except TimeoutError:
                    continue
                moved.clear()

    def _job_view(self, job_id: str) -> dict[str, Any]:
        job = self.ledger.job(job_id)
        outputs = self.ledger.outputs(job_id)
        view = job_view(job, [output.id for output in outputs])
        return view | {"timeline": timeline(job, self.ledger.deliveries(job_id), outputs)}

    async def _find(self, request: Request) -> Found:
        return await run_in_threadpool(self.search.output, _id(request))


def _closing(chunks: Iterator[bytes], opened: ExitStack) -> Iterator[bytes]:
    with opened:
        yield from chunks


def _id(request: Request) -> str:
    given = str(request.path_params["id"])
    if not ID.fullmatch(given):
        raise NoSuchThing("There is nothing with this id.")
    return given


def _listed(request: Request, name: str, views: list[dict[str, Any]], page: Page[Any]) -> Response:
    headers: Mapping[str, str] = {}
    if page.next_cursor:
        following = [(key, value) for key, value in request.query_params.multi_items() if key != "cursor"]
        query = urlencode([*following, ("cursor", page.next_cursor)])
        headers = {"link": f'<{request.url.path}?{query}>; rel="next"'}
    return JSONResponse({name: views, "next_cursor": page.next_cursor}, headers=headers)


JOB_FILTERS = {"gateway", "model", "q", "status"}
OUTPUT_FILTERS = JOB_FILTERS | {"job", "seed", "sha256"}
PAGING = {"limit", "cursor"}


ID = re.compile(r"[0-9a-f-]{36}(\.[0-9]{1,6})?")
DIGEST = re.compile(r"[0-9a-fA-F]{4,64}")
TAG_FILTER = re.compile(r"tag\.[A-Za-z0-9_.-]{1,64}")


def _wanted(request: Request, filters: set[str]) -> tuple[Wanted, int, str | None]:
    query = request.query_params
    unknown = [name for name in query if name not in filters | PAGING and not TAG_FILTER.fullmatch(name)]
    if unknown:
        known = ", ".join(sorted(filters | PAGING))
        raise InvalidRequest(
            [{"field": name, "message": f"unknown; use {known}, tag.<name>"} for name in unknown]
        )
    if nul := [name for name, value in query.items() if "\x00" in value]:
        raise InvalidRequest([{"field": name, "message": "must not hold a NUL character"} for name in nul])
    if len(query.get("q", "").split()) > MAX_WORDS:
        raise InvalidRequest([{"field": "q", "message": f"may have {MAX_WORDS} words at most"}])
    if not DIGEST.fullmatch(query.get("sha256", "0123")):
        raise InvalidRequest([{"field": "sha256", "message": "must be hex digits, 4 to 64 of them"}])
    status = query.get("status")
    if status is not None and status not in set(Status):
        raise InvalidRequest([{"field": "status", "message": f"must be one of {', '.join(Status)}"}])
    wanted = Wanted(
        job=query.get("job"),
        gateway=query.get("gateway"),
        model=query.get("model"),
        seed=query.get("seed"),
        text=query.get("q"),
        status=None if status is None else Status(status),
        sha256=query.get("sha256"),
        tags={name.removeprefix("tag."): value for name, value in query.items() if name.startswith("tag.")},
    )
    return wanted, int(_number(request, "limit", 50, least=1, most=500)), query.get("cursor")


def _number(request: Request, name: str, default: float, *, least: float = 0, most: float) -> float:
    given = request.query_params.get(name)
    if given is None:
        return default
    try:
        number = float(given)
    except ValueError:
        number = -1
    if not least <= number <= most:
        raise InvalidRequest([{"field": name, "message": f"must be a number from {least:g} to {most:g}"}])
    return number
