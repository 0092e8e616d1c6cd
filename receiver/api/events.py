"""Serve `GET /v1/events`: jobs and outputs as server-sent events (HTML standard, section 9.2)."""

import re
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from math import inf
from time import monotonic

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from receiver.api.query_params import EventQuery
from receiver.api.subscriptions import Reset, Subscriber, Subscriptions
from receiver.errors import AmbiguousId, NoSuchThing, TooManyWaiting
from receiver.http.routing import Answer, Header, Operation, complete
from receiver.schemas import events as schemas
from receiver.schemas.faults import EVENT_ID
from storage.errors import StorageError
from storage.ledger.events import Event, EventPosition
from storage.models import rfc3339
from storage.search.ids import Ids

log = structlog.get_logger("darkroom.events")

STREAM = "text/event-stream"
HEARTBEAT_S = 15.0
"""Seconds between heartbeats: proxies close a stream that is silent for 60 seconds, and a client that has
disconnected silently is noticed by writing to it."""
RETRY_MS = 2000
"""How long a browser waits before it reconnects."""
NOWHERE = EventPosition(sys.maxsize)
"""A position that no ledger has."""

LAST_EVENT_ID = Header(
    "Last-Event-ID",
    "The `id` of the last event that you have: the stream continues after it. Browsers send it.",
)


@dataclass(frozen=True, slots=True)
class EventsPage:
    """The route `GET /v1/events`."""

    waiters: Subscriptions
    ids: Ids

    @Operation(
        "GET /v1/events",
        "follow_events",
        headers=(LAST_EVENT_ID,),
        answers={
            200: Answer(schemas.SentEvent, "Server-sent events, each like this.", media_types=(STREAM,))
        },
        errors=(TooManyWaiting, NoSuchThing, AmbiguousId),
    )
    async def follow(self, request: Request, query: EventQuery) -> Response:
        """Follow jobs and outputs as server-sent events, from now on or after the event `since`.

        `event: job`: a job was created or its status changed. Its data is `{"job_id", "gateway", "status",
        "error_code", "at"}`, `error_code` null unless the job failed or waits for a problem to be fixed.

        `event: output`: an image was archived. Its data is `{"job_id", "output_id", "gateway", "at"}`.

        `event: reset`: events may be missing, because `since` is too long ago (`"reason": "forgotten"`, after
        24 hours) or this ledger never had that event (`"unknown"`). Read the lists again; the stream
        continues with new events.

        Each event has an `id`. Ids grow; send them back unchanged. A comment comes every 15 seconds.
        """
        headers = {"x-accel-buffering": "no"}
        if request.method == "HEAD":
            return Response(media_type=STREAM, headers=headers)
        place = _place(request.headers.get(LAST_EVENT_ID.name), query.since)
        job_id = None if query.job is None else await complete(self.ids.job, query.job)
        with ExitStack() as stack:
            following = self.waiters.following(request, job_id=job_id, gateway=query.gateway, place=place)
            subscriber = stack.enter_context(following)
            await subscriber.begin()
            return _Stream(_frames(subscriber, query.wait), stack.pop_all(), headers)
        raise AssertionError  # an ExitStack without a callback suppresses nothing


class _Stream(Response):
    """A response that streams frames until they end, which they do when the client disconnects."""

    media_type = STREAM

    def __init__(self, frames: AsyncIterator[bytes], opened: ExitStack, headers: dict[str, str]) -> None:
        self._frames = frames
        self._opened = opened
        self.status_code = 200
        self.background = None
        self.init_headers(headers)

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        with self._opened:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self._frames) as frames:  # type: ignore[type-var]
                async for frame in frames:
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _frames(subscriber: Subscriber, wait_s: float | None) -> AsyncIterator[bytes]:
    deadline = inf if wait_s is None else monotonic() + wait_s
    # With an id, so that a client that is cut off before the first event can resume from here.
    yield f"retry: {RETRY_MS}\n{_id(subscriber.place)}\n".encode()
    try:
        while True:
            found = await subscriber.more(min(HEARTBEAT_S, deadline - monotonic()))
            if found:
                yield "".join(_frame(one) for one in found).encode()
            elif subscriber.over or monotonic() >= deadline:
                break
            else:
                # With an id, so that the position does not grow old while no event matches.
                yield f": still here\n{_id(subscriber.place)}\n".encode()
    except StorageError as error:
        log.warning("a stream of events is ended", why=str(error))
        yield b": the ledger cannot be read; reconnect\n\n"
    if subscriber.waiters.closed:
        yield b": the service stops; reconnect\n\n"


def _frame(one: Event | Reset) -> str:
    if isinstance(one, Reset):
        return _event("reset", one.place, schemas.Reset(reason=one.why.value))
    job_id, gateway, at = one.job_id, one.gateway, rfc3339(one.at)
    if one.output is not None:
        output_id = f"{job_id}.{one.output}"
        archived = schemas.OutputArchived(job_id=job_id, gateway=gateway, at=at, output_id=output_id)
        return _event("output", one, archived)
    assert one.status is not None, "it is of a job or of an output"
    moved = schemas.JobMoved(
        job_id=job_id, gateway=gateway, at=at, status=one.status, error_code=one.error_code
    )
    return _event("job", one, moved)


def _event(kind: str, place: Event | EventPosition, data: schemas.EventData) -> str:
    return f"{_id(place)}event: {kind}\ndata: {data.to_json().decode()}\n\n"


def _id(place: Event | EventPosition | None) -> str:
    """Return the line with a position. The time is part of it, so that no other ledger has the same."""
    if place is None or place == NOWHERE:
        return ""
    return f"id: {place.id}\n" if place.at is None else f"id: {place.id}-{place.at}\n"


def _place(last: str | None, since: str | None) -> EventPosition | None:
    """Return the first position. The header wins: a browser that reconnects repeats its `since`."""
    text = last or since
    if not text:
        return None
    found = re.fullmatch(EVENT_ID, text, re.ASCII)
    # A browser cannot fix an invalid id, so it gets a reset and no error.
    return EventPosition(int(found[1]), int(found[2]) if found[2] else None) if found else NOWHERE
