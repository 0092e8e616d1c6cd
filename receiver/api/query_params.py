"""Define the query parameters of each route: the models that validate also describe them."""

from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from receiver.errors import InvalidRequest
from receiver.http.query import Query, Tagged
from receiver.query.language import MAX_CHARS, combined, read_query_text
from receiver.query.times import AGO, read_moment
from receiver.schemas.faults import DIGEST_BEGINNING, EVENT_ID
from receiver.schemas.requests import Text
from receiver.schemas.tags import TagName
from receiver.schemas.types import DIGEST_EXAMPLE, JOB_EXAMPLE, JobId, JobName, OutputId
from storage.models import Status, UsageBy
from storage.search import usage
from storage.search.filters import SearchFilter

MAX_WAIT_S = 60
MAX_FOLLOW_S = 86400
MAX_USAGE_DAYS = 366
USUAL_USAGE_DAYS = 30

EventId = Annotated[str, StringConstraints(pattern=EVENT_ID), Field(examples=["8731-1795000000000"])]


def _moment(text: str) -> str:
    read_moment(text, 0)
    return text


Moment = Annotated[
    str,
    AfterValidator(_moment),
    WithJsonSchema(
        {"type": "string", "anyOf": [{"pattern": AGO}, {"format": "date-time"}, {"format": "date"}]}
        | {"examples": ["7d", "2026-11-22"]}
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

DigestBeginning = Annotated[
    str, StringConstraints(pattern=DIGEST_BEGINNING), Field(examples=[DIGEST_EXAMPLE])
]
Limit = Annotated[int, Field(ge=1, le=500)]


class Filters(Tagged):
    """Filters of jobs and outputs; all must hold."""

    q: QueryText | None = None
    """A query: words that must all be in the prompt, in upper or lower case and any script; `"a phrase"`;
    `-word` that must not be in it; `one OR another` word; and `key:value`, where the key is `seed`, `model`,
    `gateway`, `tag` (`tag:name=value`), `status`, `is`, `type`, `size`, `width`, `height`, `bytes`, `since`,
    `until`, `on`, `sha256`, `job` or `code`. 32 words at most. A condition may be given here or
    as a parameter, not as both."""
    gateway: Annotated[Text, Field(examples=["apiframe"])] | None = None
    """The gateway's name."""
    model: Annotated[Text, Field(examples=["imagen-4-fast"])] | None = None
    """The model, as requested or as reported, in any case."""
    status: Status | None = None
    """The job's status."""
    code: Annotated[Text, Field(examples=["image_expired"])] | None = None
    """The code of the job's error."""
    since: Moment | None = None
    """Created then or later: a date, an RFC 3339 time, or how long ago, such as `7d`."""
    until: Moment | None = None
    """Created before then."""

    def wanted(self, now: int) -> SearchFilter:
        """Return them as the ledger has them; `now` in milliseconds.

        Raises InvalidRequest if `q` and a parameter give the same condition.
        """
        return combined(read_query_text(self.q or "", now), self.given(now))

    def given(self, now: int) -> SearchFilter:
        """Return what the parameters beside `q` ask for."""
        return SearchFilter(
            gateway=self.gateway and self.gateway.casefold(),
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
    """How many a page has."""
    cursor: JobId | None = None
    """The `next_cursor` of the previous page."""


class OutputFilters(Filters):
    """Filters of outputs."""

    job: Annotated[Text, Field(examples=[JOB_EXAMPLE])] | None = None
    """The id of the job that made it, or its beginning: 8 characters or more, that fit no other job."""
    seed: Annotated[Text, Field(examples=["42"])] | None = None
    """The seed, as requested or as reported."""
    sha256: DigestBeginning | None = None
    """The digest of the image, or its beginning."""

    def given(self, now: int) -> SearchFilter:
        """Return what the parameters beside `q` ask for."""
        return replace(super().given(now), job=self.job, seed=self.seed, sha256=self.sha256)


class OutputQuery(OutputFilters):
    """Of `GET /v1/outputs`."""

    limit: Limit = 50
    """How many a page has."""
    cursor: OutputId | None = None
    """The `next_cursor` of the previous page."""


class WaitQuery(Query):
    """Of `GET /v1/jobs/{id}`."""

    wait: float = Field(0, examples=[60], ge=0, le=MAX_WAIT_S, allow_inf_nan=False)
    """Seconds to wait for the job to finish before the response."""


class EventQuery(Query):
    """Of `GET /v1/events`."""

    job: JobName | None = None
    """Of this job only: its id, or the beginning of it."""
    gateway: Annotated[Text, Field(examples=["apiframe"])] | None = None
    """Of this gateway's jobs only."""
    since: EventId | None = None
    """Begin after the event with this id; 0: with the oldest one kept. `Last-Event-ID` takes precedence."""
    wait: float | None = Field(None, examples=[60], ge=0, le=MAX_FOLLOW_S, allow_inf_nan=False)
    """Seconds after which the stream ends; 0 for past events only. Without it the stream does not end."""


class UsageQuery(Query):
    """Of `GET /v1/usage`."""

    by: UsageBy | None = None
    """What usage is grouped by: by default the tag if `tag` is given, and else the gateway."""
    tag: Annotated[TagName, Field(examples=["campaign"])] | None = None
    """The name of the tag by whose values jobs are grouped."""
    gateway: Annotated[Text, Field(examples=["apiframe"])] | None = None
    """Only jobs of this gateway."""
    since: Moment | None = None
    """Created then or later; at most 366 days before `until`. Without it: today and the 29 days before."""
    until: Moment | None = None
    """Created before then; now by default, and at the latest."""
    limit: int = Field(100, ge=1, le=1000)
    """How many groups are listed; days are always all listed."""

    def wanted(self, now: int) -> usage.UsageFilter:
        """Return it as the ledger has it; `now` in milliseconds. Raises InvalidRequest."""
        by = self.by or (UsageBy.TAG if self.tag else UsageBy.GATEWAY)
        if (by is UsageBy.TAG) != (self.tag is not None):
            message = "say which tag" if self.tag is None else f"goes with by=tag only, not with by={by}"
            raise InvalidRequest([{"field": "tag", "message": message}])
        since, until = self._time(now)
        if since >= until:
            message = "must be before until, and not in the future"
            raise InvalidRequest([{"field": "since", "message": message}])
        if until - since > MAX_USAGE_DAYS * usage.DAY_MS:
            message = f"must be at most {MAX_USAGE_DAYS} days before until; ask for less at a time"
            raise InvalidRequest([{"field": "since", "message": message}])
        return usage.UsageFilter(by, since, until, self.gateway, self.tag)

    def _time(self, now: int) -> tuple[int, int]:
        # A job created in this millisecond is counted too.
        until = now + 1 if self.until is None else min(now + 1, read_moment(self.until, now))
        if self.since is not None:
            return read_moment(self.since, now), until
        today = (until - 1) // usage.DAY_MS
        return max(0, (today - USUAL_USAGE_DAYS + 1) * usage.DAY_MS), until


class ImageQuery(Query):
    """Of `GET /v1/outputs/{id}/image`."""

    stream: bool = False
    """Return the image itself instead of a link."""
    download: bool = False
    """Have a browser save the image instead of showing it."""
