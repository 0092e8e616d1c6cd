"""A reader of server-sent events for the tests, written by the HTML standard, section 9.2.6."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx

from storage.ledger.events import Event
from storage.models import rfc3339

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Told:
    id: str
    kind: str
    data: dict[str, Any]


@dataclass
class Source:
    response: httpx.Response
    last_id: str = ""
    retry_ms: int | None = None
    comments: list[str] = field(default_factory=list)

    async def __aiter__(self) -> AsyncIterator[Told]:
        kind, data = "", ""
        async for line in self.response.aiter_lines():
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if line == "":
                if data:
                    yield Told(self.last_id, kind or "message", json.loads(data))
                kind, data = "", ""
            elif name == "":
                self.comments.append(value)
            elif name == "id":
                self.last_id = value
            elif name == "event":
                kind = value
            elif name == "data":
                assert not data, "one line each"
                data = value
            elif name == "retry":
                self.retry_ms = int(value)
            else:
                raise AssertionError(line)


@cache
def plain() -> ssl.SSLContext:
    """Made once: to read the certificates of the world takes longer than any request here."""
    return ssl.create_default_context()


@asynccontextmanager
async def following(
    url: str, last: str | None = None, *, token: str | None = None, **query: Any
) -> AsyncIterator[Source]:
    """Follow `GET /v1/events`; `last` is the `Last-Event-ID`."""
    headers = {} if last is None else {"last-event-id": last}
    headers |= {} if token is None else {"authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_S, verify=plain()) as http,
        http.stream("GET", "/v1/events", params=query, headers=headers) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
        yield Source(response)


async def take(source: Source, number: int) -> list[Told]:
    found: list[Told] = []
    async with asyncio.timeout(PATIENCE_S):
        async for told in source:
            found.append(told)
            if len(found) == number:
                break
    return found


async def everything(url: str, last: str | None = None, **query: Any) -> list[Told]:
    """All that has happened, and is told at once."""
    async with following(url, last, wait=0, **query) as source:
        return [told async for told in source]


def as_told(event: Event) -> Told:
    """An event of the ledger as the API must tell it."""
    data = {"job_id": event.job_id, "gateway": event.gateway, "at": rfc3339(event.at)}
    name = f"{event.id}-{event.at}"
    if event.output is not None:
        return Told(name, "output", data | {"output_id": f"{event.job_id}.{event.output}"})
    return Told(name, "job", data | {"status": event.status, "error_code": event.error_code})
