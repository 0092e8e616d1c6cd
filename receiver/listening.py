"""Follow a running Darkroom's events, and take the stream up again where it broke."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from receiver.client_http import ApiError, Http, Unreachable
from receiver.downloading import PASSING, Patience

SILENT_S = 60.0
"""Seconds without a sign of life after which a stream is taken for broken; the service sends one in 15."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `id`: what `events(since=...)` goes on from; `data`: as the API sent it."""

    id: str
    kind: str
    data: Mapping[str, Any]


def listen(http: Http, since: str | None, patience: Patience) -> Iterator[Event]:
    """Events after `since`, or from now on; see `Darkroom.events`."""
    last, failures = since, 0
    while True:
        try:
            for event in _stream(http, last):
                last, failures = event.id or last, 0
                yield event
        except (Unreachable, ApiError) as error:
            passing = not isinstance(error, ApiError) or error.status in PASSING
            if not passing or failures >= len(patience.delays_s):
                raise
            patience.sleep(patience.delays_s[failures])
            failures += 1
        else:
            # The service closes the stream when it stops; it may be back soon.
            if failures >= len(patience.delays_s):
                raise Unreachable(f"The Darkroom at {http.url} keeps closing the stream of events.")
            patience.sleep(patience.delays_s[failures])
            failures += 1


def _stream(http: Http, last: str | None) -> Iterator[Event]:
    # Here and not above, because only who listens needs it.
    from httpx_sse import EventSource

    headers = {"accept": "text/event-stream", "cache-control": "no-store"}
    if last is not None:
        headers["last-event-id"] = last
    with http.open("/v1/events", headers, timeout_s=SILENT_S) as response:
        for sent in EventSource(response).iter_sse():
            if not sent.data:
                continue
            data = http.read(json.loads, sent.data)
            if not isinstance(data, dict):
                raise http.stranger(" (an event was no JSON object)")
            yield Event(sent.id, sent.event, data)
