"""What may stand behind the `?` of each route, checked, and described by the same models."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from receiver.errors import InvalidRequest
from receiver.http.query import Query, Tagged
from receiver.query.language import MAX_CHARS, combined, read_query_text
from receiver.query.times import AGO, read_moment
from receiver.schemas.requests import TagName, Text
from receiver.schemas.types import JobId, OutputId
from storage.models import Status, UsageBy
from storage.search import usage
from storage.search.filters import SearchFilter

MAX_WAIT_S = 60
MAX_FOLLOW_S = 86400
MAX_USAGE_DAYS = 366
USUAL_USAGE_DAYS = 30

EVENT_ID = re.compile(r"^([0-9]{1,18})(?:-([0-9]{1,15}))?$", re.ASCII)
"""The id of an event: its number, and when it happened."""
EventId = Annotated[str, StringConstraints(pattern=EVENT_ID.pattern)]


def _moment(text: str) -> str:
    read_moment(text, 0)
    return text


Moment = Annotated[
    str,
    AfterValidator(_moment),
    WithJsonSchema(
        {
            "type": "string",
            "anyOf": [{"pattern": AGO}, {"format": "date-time"}, {"format": "date"}],
            "examples": ["7d", "2026-11-22"],
        }
    ),
]


def _query_text(text: str) -> str:
    try:
        read_query_text(text, 0)
    except InvalidRequest as error:
        raise ValueError("; ".join(fault["message"] for fault in error.faults)) from None
    return text


QueryText = Annotated[
    Text,
    Field(max_length=MAX_CHARS, examples=['red kite "grey harbour" -cartoon type:png width:>=1024']),
    AfterValidator(_query_text),
]


Limit = Annotated[int, Field(ge=1, le=500)]


class Filters(Tagged):
    """What jobs and outputs are looked for by; every condition given must hold."""

    q: QueryText | None = None
    """What to look for, in the query language: words that all stand in the prompt, in any case and script;
    `"a phrase"`; `-word` that does not stand there; and `key:value`, where the key is `seed`, `model`,
    `gateway`, `tag` (`tag:name=value`), `status`, `type`, `size`, `width`, `height`, `bytes`, `since`,
    `until`, `on`, `sha256`, `job` or `code`. 32 words at most; what is asked for here may not be asked for by
    a parameter as well."""
    gateway: Text | None = None
    """The gateway's name."""
    model: Text | None = None
    """The model, as asked for or as reported."""
    status: Status | None = None
    """The job's status."""
    code: Text | None = None
    """The code of the job's error."""
    since: Moment | None = None
    """Taken in then or later: a date, an RFC 3339 time, or how long ago, such as `7d`."""
    until: Moment | None = None
    """Taken in before then."""

    def wanted(self, now: int) -> SearchFilter:
        """The same in the ledger's words; `now` in milliseconds.

        Raises InvalidRequest if `q` and a parameter ask for the same.
        """
        return combined(read_query_text(self.q or "", now), self.given(now))

    def given(self, now: int) -> SearchFilter:
        """What the parameters beside `q` ask for."""
        return SearchFilter(
            gateway=self.gateway,
            model=self.model,
            status=self.status,
            code=self.code,
            since=None if self.since is None else read_moment(self.since, now),
            until=None if self.until is None else read_moment(self.until, now),
            tags=self.tags(),
        )


class JobQuery(Filters):
    """Of `GET /v1/jobs`."""

    limit: Limit = 50
    """How many a page holds."""
    cursor: JobId | None = None
    """The `next_cursor` of the page before."""


class OutputFilters(Filters):
    """What outputs are looked for by, besides."""

    job: Text | None = None
    """The id of the job that made it."""
    seed: Text | None = None
    """The seed, as asked for or as reported."""
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-fA-F]{4,64}$")] | None = None
    """The digest of the image, or its beginning."""

    def given(self, now: int) -> SearchFilter:
        """What the parameters beside `q` ask for."""
        return replace(super().given(now), job=self.job, seed=self.seed, sha256=self.sha256)


class OutputQuery(OutputFilters):
    """Of `GET /v1/outputs`."""

    limit: Limit = 50
    """How many a page holds."""
    cursor: OutputId | None = None
    """The `next_cursor` of the page before."""


class WaitQuery(Query):
    """Of `GET /v1/jobs/{id}`."""

    wait: float = Field(0, ge=0, le=MAX_WAIT_S, allow_inf_nan=False)
    """Seconds to hold the answer back for, unless the job is terminal before."""


class EventQuery(Query):
    """Of `GET /v1/events`."""

    job: JobId | None = None
    """Of this job only."""
    gateway: Text | None = None
    """Of this gateway's jobs only."""
    since: EventId | None = None
    """Begin after the event of this id; 0: with the oldest that is kept. `Last-Event-ID` comes first."""
    wait: float | None = Field(None, ge=0, le=MAX_FOLLOW_S, allow_inf_nan=False)
    """Seconds after which the stream ends; 0 for what has happened already. Without it there is no end."""


class UsageQuery(Query):
    """Of `GET /v1/usage`."""

    by: UsageBy | None = None
    """What usage is told apart by; with `tag` it is that tag, and else the gateway."""
    tag: TagName | None = None
    """The name of the tag by whose values jobs are told apart."""
    gateway: Text | None = None
    """Only jobs of this gateway."""
    since: Moment | None = None
    """Taken in then or later; at most 366 days before `until`. Without it: today and the 29 days before."""
    until: Moment | None = None
    """Taken in before then; up to now without it, and at most."""
    limit: int = Field(100, ge=1, le=1000)
    """How many groups are told by themselves; days are always all told."""

    def wanted(self, now: int) -> usage.UsageFilter:
        """The same in the ledger's words; `now` in milliseconds. Raises InvalidRequest."""
        by = self.by or (UsageBy.TAG if self.tag else UsageBy.GATEWAY)
        if (by is UsageBy.TAG) != (self.tag is not None):
            told = "say which tag" if self.tag is None else f"goes with by=tag only, not with by={by}"
            raise InvalidRequest([{"field": "tag", "message": told}])
        since, until = self._time(now)
        if since >= until:
            told = "must be before until, and not in the future"
            raise InvalidRequest([{"field": "since", "message": told}])
        if until - since > MAX_USAGE_DAYS * usage.DAY_MS:
            told = f"must be at most {MAX_USAGE_DAYS} days before until; ask for less at a time"
            raise InvalidRequest([{"field": "since", "message": told}])
        return usage.UsageFilter(by, since, until, self.gateway, self.tag)

    def _time(self, now: int) -> tuple[int, int]:
        # What was taken in within this very millisecond is counted too.
        until = now + 1 if self.until is None else min(now + 1, read_moment(self.until, now))
        if self.since is not None:
            return read_moment(self.since, now), until
        today = (until - 1) // usage.DAY_MS
        return max(0, (today - USUAL_USAGE_DAYS + 1) * usage.DAY_MS), until


class ImageQuery(Query):
    """Of `GET /v1/outputs/{id}/image`."""

    stream: bool = False
    """Answer the bytes themselves."""
    download: bool = False
    """Have a browser save the image instead of showing it."""
