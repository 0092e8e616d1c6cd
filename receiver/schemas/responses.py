"""What the API answers, as types: `receiver.schemas.views` builds them, and `/openapi.json` describes them.

They are plain dictionaries, so an answer costs nothing to check while the service runs: mypy holds every
view to its type, and a test holds the answers of a running service to the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, StringConstraints, with_config

# pydantic reads `typing.TypedDict` from Python 3.12 on only.
from typing_extensions import TypedDict

from storage.ledger.deliveries import DeliveryResult
from storage.ledger.notifications import State
from storage.models import FoundBy, Status, Verdict
from storage.search.usage import By

_told = with_config(ConfigDict(use_attribute_docstrings=True))

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
JobId = Annotated[str, StringConstraints(pattern=f"^{UUID}$")]
OutputId = Annotated[str, StringConstraints(pattern=rf"^{UUID}\.[0-9]{{1,6}}$")]
NotificationId = Annotated[str, StringConstraints(pattern=rf"^{UUID}\.[0-9]{{1,6}}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339, in UTC, to the millisecond."""
AtFault = Annotated[
    str, Field(json_schema_extra={"enum": ["request", "gateway", "image", "archive", "operator"]})
]
Count = Annotated[int, Field(ge=0)]


@_told
class Asked(TypedDict):
    """What a job was submitted with."""

    model: str
    prompt: str
    negative_prompt: str | None
    aspect_ratio: str | None
    num_images: int | None
    seed: str | None
    """As text, because some seeds are texts and some numbers exceed 2^53."""
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    ignored: list[str]
    """The parameters that its gateway does not have and that were dropped as allowed."""


@_told
class Reported(TypedDict):
    """What the gateway reported of a job; null where it did not."""

    model: str | None
    seed: str | None
    credits: float | None
    credits_estimated: bool
    """Whether `credits` comes from the gateway's price list, not from its answer."""
    credits_before: Annotated[float, Field(ge=0)]
    """What earlier submissions of the job cost, as far as known; `credits` leaves it out, and 0 is usual."""


@_told
class Failure(TypedDict):
    """Why a job failed, is partial, or is being tried again."""

    code: str
    """A short word; the README lists them all."""
    message: str
    at_fault: AtFault
    """Who can mend it."""
    details: Mapping[str, Any] | None
    """The gateway's own words for what is wrong, field by field, where it gave them."""


@_told
class Moved(TypedDict):
    """The job came to a status."""

    at: Time
    event: Literal["moved"]
    status: Status


@_told
class Delivered(TypedDict):
    """A callback was verified and recorded."""

    at: Time
    event: Literal["delivery"]
    id: str
    signature: Verdict
    """What the gateway's own signature said."""
    effect: str | None
    """What it changed; null until it was looked at."""
    body_sha256: Digest


@_told
class Stored(TypedDict):
    """An image was stored."""

    at: Time
    event: Literal["stored"]
    output: OutputId


@_told
class Attempted(TypedDict):
    """Something was tried, once or several times in a row with the same end."""

    at: Time
    """When it was tried last."""
    event: Literal["attempt"]
    step: str
    """What was tried: `send`, `ask`, `download`, `archive` or `retry`."""
    code: str
    """What came back: `taken`, `running`, `succeeded`, `failed`, `asked`, or an error's code."""
    message: str
    first_at: Time
    times: Count


@_told
class Notified(TypedDict):
    """Your application was notified that the job came to rest, or is to be."""

    at: Time
    """When that was tried last, or owed since."""
    event: Literal["notified"]
    notification: NotificationId
    state: State
    attempts: Count
    code: str | None
    """Why the last try failed; null if it did not."""


Event = Annotated[Moved | Attempted | Delivered | Stored | Notified, Field(discriminator="event")]
"""One entry of a job's timeline."""


@_told
class Job(TypedDict):
    """One submission to one gateway."""

    id: JobId
    gateway: str
    gateway_job_id: str | None
    """The gateway's own id of it, once that is known."""
    status: Status
    request: Asked
    result: Reported
    error: Failure | None
    outputs: list[OutputId]
    found_by: FoundBy | None
    """How its result reached us: a poll, or a callback."""
    attempts: Count
    """How often its present step was tried."""
    next_attempt_at: Time | None
    """When that is tried again, or first; null once the job rests."""
    submission: Count
    """How often it was submitted, or is to be: more than once only if somebody asked for it."""
    request_id: str | None
    """The id of the API request that brought it; the log has it in every line about the job."""
    created_at: Time
    updated_at: Time
    timeline: NotRequired[list[Event]]
    """What happened to it, oldest first, with its 200 newest callbacks; only where one job is shown."""


@_told
class JobPage(TypedDict):
    """Some jobs, newest first."""

    jobs: list[Job]
    next_cursor: JobId | None
    """Asks for the next page as `cursor`; null on the last one."""


@_told
class Output(TypedDict):
    """One archived image, and what made it."""

    id: OutputId
    job_id: JobId
    index: Count
    """Its place among the job's images, from 0."""
    key: str
    """Where it lies in the bucket."""
    sha256: Digest
    """Of its bytes, as they came from the gateway and as they lie in the bucket."""
    bytes: Count
    media_type: str
    width: Count
    height: Count
    seed: str | None
    """The gateway's own; null if it gave none. Never derived, never guessed."""
    seed_requested: str | None
    stored_at: Time
    gateway: str
    model: str
    """As reported, or as requested where the gateway reports none."""
    model_requested: str
    prompt: str
    tags: Mapping[str, str]
    version_id: str | None
    """The object's version, where the bucket keeps versions."""
    job: NotRequired[Job]
    """The job that made it; only where one output is shown."""


@_told
class OutputPage(TypedDict):
    """Some outputs, those of the newest job first."""

    outputs: list[Output]
    next_cursor: OutputId | None
    """Asks for the next page as `cursor`; null on the last one."""


class FacetValue(TypedDict):
    """One value of a facet, and how many outputs have it."""

    value: str
    outputs: Count


@_told
class FacetCounts(TypedDict):
    """How many outputs there are of each gateway, model, day and tag: 20 values of each at most."""

    counted: Count
    """How many outputs were counted."""
    complete: bool
    """Whether those are all; otherwise they are the newest ones that were asked for."""
    gateway: list[FacetValue]
    model: list[FacetValue]
    day: list[FacetValue]
    """Days in UTC on which jobs were taken in, the latest first: `2026-11-22`."""
    tag: list[FacetValue]
    """Each as `name=value`."""


@_told
class Notification(TypedDict):
    """What your application was told, or is to be told, of one time that a job came to rest."""

    id: NotificationId
    """`<job id>.<number>`; its messages have `webhook-id: msg_<job id>_<number>`."""
    job_id: JobId
    number: Count
    """Which of its job's it is, from 1; a job that is retried comes to rest again."""
    type: str
    """Such as `job.archived`."""
    state: State
    host: str
    """Where it goes. The rest of the URL is not shown, since it may hold a secret."""
    at: Time
    """When the job came to rest."""
    attempts: Count
    """Tries since then, or since a replay was asked for."""
    tried_at: Time | None
    next_attempt_at: Time | None
    delivered_at: Time | None
    code: str | None
    """Why the last try failed; null if it did not."""
    message: str | None


@_told
class NotificationPage(TypedDict):
    """Some notifications, those of the newest job first."""

    notifications: list[Notification]
    next_cursor: NotificationId | None
    """Asks for the next page as `cursor`; null on the last one."""


class NotifiedOutput(Output):
    """One archived image, as a notification tells of it."""

    image: Annotated[str, Field(description="The path at your Darkroom that leads to the image.")]


@_told
class NotificationData(TypedDict):
    """The job as it was when it came to rest."""

    whole: bool
    """False if long texts were left out; `GET /v1/jobs/{id}` has them."""
    job: Job
    outputs: list[NotifiedOutput]


@_told
class Message(TypedDict):
    """The body of a notification, by the Standard Webhooks specification."""

    type: Literal["job.archived", "job.partial", "job.failed"]
    timestamp: Time
    """When the job came to rest."""
    data: NotificationData


class Page(TypedDict):
    """How many jobs of one gateway are in each state."""

    # `ServiceStatus` takes these over, and docstrings of fields are not inherited.
    accepted: Annotated[int, Field(ge=0, description="Every job ever accepted.")]
    queued: Count
    submitting: Count
    running: Count
    ready: Count
    archived: Count
    partial: Count
    failed: Count
    balanced: Annotated[bool, Field(description="Whether every accepted job is accounted for.")]
    found_by_polling: Annotated[int, Field(ge=0, description="Results whose callback never came.")]
    oldest_unfinished_age_s: Annotated[float | None, Field(ge=0, description="Null if none is unfinished.")]


@_told
class ServiceStatus(Page):
    """How many jobs are in each state, in total and by gateway."""

    gateways: Mapping[str, Page]


@_told
class Circuit(TypedDict):
    """What is known of a gateway or an image host that failed lately."""

    state: Literal["closed", "open", "half_open"]
    """`closed`: failures are counted. `open`: it is left alone. `half_open`: one try is let through."""
    step: str
    """What failed there last: `send`, `ask` or `download`."""
    code: str
    message: str
    at_fault: AtFault
    failures: Count
    """Failures in a row."""
    since: Time
    retry_at: Time | None


class GatewayState(TypedDict):
    """A gateway that is configured here, and its circuit if it failed lately."""

    name: str
    circuit: Circuit | None


class ImageHost(TypedDict):
    """An image host that failed lately."""

    name: str
    circuit: Circuit


class Gateways(TypedDict):
    """How the gateways and their image hosts are."""

    gateways: list[GatewayState]
    image_hosts: list[ImageHost]


@_told
class Spent(TypedDict):
    """What some jobs cost and made."""

    jobs: Count
    """All that were taken in."""
    jobs_without_credits: Count
    """Those whose cost is not known, at least not yet; of it only that of earlier submissions is in a sum."""
    outputs: Count
    """Archived images."""
    credits: float | None
    """As the gateways count them, each its own; null where no job's are known."""
    credits_estimated: float | None
    """The part of `credits` that comes from price lists, not from gateways' answers; null if none does."""


class SpentOn(Spent):
    """What the jobs cost and made that have one thing in common."""

    # Docstrings of fields are not inherited, so `_told` would leave the others without any.
    value: Annotated[
        str | None,
        Field(description="The gateway, the model, the day, or the tag's value; null without that tag."),
    ]


@_told
class Usage(TypedDict):
    """What was spent in a time."""

    by: By
    tag: str | None
    """The tag's name, by whose values the jobs are told apart."""
    gateway: str | None
    """The one gateway whose jobs were counted."""
    since: Time
    until: Time
    groups: list[SpentOn]
    """Every day in order, those without jobs included; of others those with the most credits, most first."""
    others: Spent | None
    """All groups beyond `limit` together; null if there are none."""
    total: Spent


@_told
class Taken(TypedDict):
    """What became of a callback: recorded, or recorded before."""

    status: Literal[DeliveryResult.ACCEPTED, DeliveryResult.DUPLICATE]


class Alive(TypedDict):
    """The process runs."""

    status: Literal["ok"]


@_told
class Readiness(TypedDict):
    """Whether every part can be used now."""

    status: Literal["ready", "not ready"]
    checks: Mapping[str, str]
    """`ok` for each part, or what is wrong with it."""
    warnings: Mapping[str, str]
    """What an operator should know although work goes on, such as a gateway that is paused."""


@_told
class Fault(TypedDict):
    """One thing that is wrong with a request."""

    field: str
    message: str


@_told
class Problem(TypedDict):
    """An error, as RFC 9457 problem details."""

    type: str
    title: str
    status: int
    """The HTTP status once more."""
    code: str
    """A short word that stays the same; act on this one."""
    detail: str
    """What to do, in a sentence."""
    faults: NotRequired[list[Fault]]
    """Each field that is wrong, where fields are."""
