"""Follow a running Darkroom's server-sent events, and reconnect where the stream broke."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from receiver.client.download import PASSING, Patience
from receiver.client.http import ApiError, Http, Unreachable, given

SILENT_S = 60.0
"""Seconds without a heartbeat after which a stream counts as broken; the service sends one in 15."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event; `kind` is job, output or reset. `events(since=id)` continues after it."""

    id: str
    kind: str
    data: Mapping[str, Any]


def listen(http: Http, since: str | None, patience: Patience, **filters: str | None) -> Iterator[Event]:
    """Yield events after `since`, or from now on; see `Darkroom.events`."""
    last, failures = since, 0
    while True:
        ended: Exception = Unreachable(f"The Darkroom at {http.url} keeps ending the stream of events.")
        try:
            for place, event in _stream(http, last, urlencode(given(**filters))):
                last, failures = place or last, 0
                if event is not None:
                    yield event
        except (Unreachable, ApiError) as error:
            if isinstance(error, ApiError) and error.status not in PASSING:
                raise
            ended = error
        # Ended or broken: the service may have been restarted, and be back soon.
        if failures >= len(patience.delays_s):
            raise ended
        patience.sleep(patience.delays_s[failures])
        failures += 1


def _stream(http: Http, last: str | None, query: str) -> Iterator[tuple[str, Event | None]]:
    """Yield the stream's position with the event there; None for a heartbeat."""
    # Imported here, because most clients need it never.
    from httpx_sse import EventSource

    headers = {"accept": "text/event-stream", "cache-control": "no-store"}
    if last is not None:
        headers["last-event-id"] = last
    with http.open(f"/v1/events?{query}".rstrip("?"), headers, timeout_s=SILENT_S) as response:
        for sent in EventSource(response).iter_sse():
            if not sent.data:
                yield sent.id, None
                continue
            data = http.read(json.loads, sent.data)
            if not isinstance(data, dict):
                raise http.stranger(" (an event was no JSON object)")
            yield sent.id, Event(sent.id, sent.event, data)
