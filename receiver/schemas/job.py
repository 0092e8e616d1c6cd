"""Define a job in JSON: its request, its result, its error and its timeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from receiver.schemas import types
from receiver.schemas.output import Output
from receiver.schemas.types import GatewayName, ModelName, Prompt, Tags
from storage.models import FoundBy, NotificationState, Status, Verdict, rfc3339

if TYPE_CHECKING:
    from storage import models
    from storage.ledger.notifications import Notification

StatusValue = Annotated[Status | str, types.NEWER_TOO, Field(examples=["archived"])]
StateValue = Annotated[NotificationState | str, types.NEWER_TOO, Field(examples=["delivered"])]


class JobRequest(types.Resource):
    """What a job was submitted with."""

    model: ModelName
    prompt: Prompt
    negative_prompt: str | None
    aspect_ratio: Annotated[str | None, Field(examples=["16:9"])]
    num_images: Annotated[int | None, Field(examples=[1])]
    seed: str | None
    """As text, because some seeds are texts and some numbers exceed 2^53."""
    params: Annotated[Mapping[str, Any], Field(examples=[{}])]
    tags: Tags
    ignored: Annotated[tuple[str, ...], Field(examples=[[]])]
    """Parameters that the gateway does not have, left out because the request allowed it."""


class Withheld(types.Resource):
    """A place in the gateway's list of images that has none."""

    index: Annotated[types.Count, Field(examples=[1])]
    """The place, from 0. No output of the job has this index."""
    reason: Annotated[str | None, Field(examples=["blocked by the safety filter"])]
    """The gateway's own words, such as a safety filter's; null if it gave none."""


class JobResult(types.Resource):
    """What the gateway reported of a job; null where it reported nothing."""

    model: Annotated[str | None, Field(examples=["imagen-4-fast"])]
    seed: str | None
    """The seed that the gateway says it used; one that it only sent back is not shown as such."""
    credits: Annotated[float | None, Field(examples=[4.0])]
    credits_estimated: bool
    """Whether `credits` comes from the gateway's price list and not from its response."""
    credits_before: Annotated[float, Field(ge=0, examples=[0.0])]
    """Cost of earlier submissions of the job, as far as known; not included in `credits`, and usually 0."""
    images_requested: Annotated[int | None, Field(examples=[4])] = None
    """`num_images` of the request."""
    images_returned: Annotated[types.Count | None, Field(examples=[3])] = None
    """How many images the gateway returned, whether or not they could be archived."""
    withheld: Annotated[tuple[Withheld, ...], Field(examples=[[]])] = ()
    """Places in the gateway's list that have no image, with its reasons. `is:short` in a search finds jobs
    with fewer images than requested."""


class JobError(types.Resource):
    """Why a job failed, is partial, or is being tried again."""

    code: Annotated[str, Field(examples=["gateway_unavailable"])]
    """A short word; the list of errors has them all."""
    message: Annotated[str, Field(examples=["It answered 503."])]
    at_fault: types.AtFault
    """Who can fix it."""
    details: Annotated[Mapping[str, Any] | None, Field(examples=[None])]
    """The gateway's own description of the error, field by field, where it gave one; where several images
    of a job failed, what was wrong with each."""


class Moved(types.Resource):
    """The job reached a status."""

    at: types.Time
    event: Literal["moved"]
    status: StatusValue


class Attempted(types.Resource):
    """A step was tried, once or several times in a row with the same outcome."""

    at: types.Time
    """When it was last tried."""
    event: Literal["attempt"]
    step: Annotated[str, Field(examples=["send"])]
    """What was tried: `send`, `ask`, `download`, `archive` or `retry`."""
    code: Annotated[str, Field(examples=["gateway_unavailable"])]
    """The outcome: `taken` (submitted), `running`, `succeeded`, `failed`, `asked` (a retry), or an error's
    code."""
    message: Annotated[str, Field(examples=["It answered 503."])]
    first_at: types.Time
    times: Annotated[types.Count, Field(examples=[1])]

    @classmethod
    def of(cls, attempt: models.Attempt) -> Attempted:
        """Build it from an entry of the ledger's attempt log."""
        at, first_at = rfc3339(attempt.last_at), rfc3339(attempt.first_at)
        return cls.trusted(attempt, event="attempt", at=at, first_at=first_at)


class Delivered(types.Resource):
    """A callback was verified and recorded."""

    at: types.Time
    event: Literal["delivery"]
    id: Annotated[str, Field(examples=["019a9f3e-6a07-7f1c-8d55-0c1b2a394857"])]
    signature: Annotated[Verdict | str, types.NEWER_TOO]
    """The result of checking the gateway's own signature; `answer` if it is no callback, but the gateway's
    answer to a request of ours with the images in it."""
    effect: Annotated[str | None, Field(examples=["ready"])]
    """What it changed: `progress`, `hint` (unsigned, so the gateway is asked), `ready`, `failed`, `late` or
    `mismatch`; null until it is processed."""
    body_sha256: types.Digest

    @classmethod
    def of(cls, delivery: models.Delivery) -> Delivered:
        """Build it from a recorded delivery."""
        return cls.trusted(delivery, event="delivery", at=rfc3339(delivery.received_at))


class Stored(types.Resource):
    """An image was stored."""

    at: types.Time
    event: Literal["stored"]
    output: types.OutputId


class Notified(types.Resource):
    """Your application was notified that the job is finished, or will be."""

    at: types.Time
    """When it was last tried, or since when it is waiting to be sent."""
    event: Literal["notified"]
    notification: types.NotificationId
    state: StateValue
    attempts: Annotated[types.Count, Field(examples=[1])]
    code: str | None
    """Why the last try failed; null if it did not."""

    @classmethod
    def of(cls, one: Notification) -> Notified:
        """Build it from a notification in the ledger."""
        at = rfc3339(one.tried_at or one.at)
        return cls.trusted(one, event="notified", at=at, notification=one.id)


class NewerEvent(types.Resource):
    """An entry of a timeline that only a newer service knows."""

    at: str
    event: str


KnownEvent = Annotated[Moved | Attempted | Delivered | Stored | Notified, Field(discriminator="event")]
TimelineEvent = KnownEvent | NewerEvent


class Job(types.Resource):
    """One submission to one gateway."""

    id: types.JobId
    gateway: GatewayName
    gateway_job_id: Annotated[str | None, Field(examples=["3b241101-e2bb-4255-8caf-4136c566a962"])]
    """The gateway's own id for it, once known."""
    status: StatusValue
    request: JobRequest
    result: JobResult
    error: Annotated[JobError | None, Field(examples=[None])]
    outputs: tuple[Output, ...]
    """Its archived images, by index."""
    missing: tuple[types.OutputId, ...] = types.absent(())
    """Those of its outputs whose archived image is no longer in the bucket as it was; a retry fetches them
    again while the gateway has them."""
    warnings: tuple[str, ...] = types.absent(())
    """What may be wrong with it, such as a model that its gateway is not known to have; absent where there is
    nothing to say, and once the gateway has made its images."""
    found_by: Annotated[Annotated[FoundBy | str, types.NEWER_TOO] | None, Field(examples=["callback"])]
    """How its result was received: by a callback, by polling, or in the answer to its submission."""
    attempts: Annotated[types.Count, Field(examples=[1])]
    """How often its current step was tried."""
    next_attempt_at: types.Time | None
    """When the current step is tried next; null once the job is finished."""
    submission: Annotated[types.Count, Field(examples=[1])]
    """How often it was submitted, or will be: more than once only after a retry with `resubmit`."""
    request_id: Annotated[str | None, Field(examples=["019a9f3e5c1c7d80a1b2c3d4e5f60718"])]
    """The id of the API request that created it; every log line about the job has it."""
    created_at: types.Time
    updated_at: types.Time
    timeline: tuple[Annotated[TimelineEvent, types.NEWER_TOO], ...] = types.absent(())
    """What happened to it, oldest first, with its 200 newest callbacks; only where one job is shown."""

    @classmethod
    def of(
        cls,
        job: models.Job,
        outputs: Sequence[models.Output],
        links: str,
        timeline: Sequence[TimelineEvent] = (),
        warnings: Sequence[str] = (),
    ) -> Job:
        """Build it from a job of the ledger and its outputs; `links` is what their URLs begin with."""
        return cls.trusted(
            job,
            request=JobRequest.trusted(job.request),
            result=JobResult.trusted(
                job.result,
                credits_before=job.credits_before,
                images_requested=job.request.num_images,
                withheld=tuple(Withheld.trusted(one) for one in job.result.withheld),
            ),
            error=None if job.error is None else JobError.trusted(job.error),
            outputs=tuple(Output.of(output, job, links) for output in outputs),
            missing=tuple(output.id for output in outputs if output.missing_since is not None),
            warnings=tuple(warnings),
            next_attempt_at=types.time(job.next_attempt_at),
            created_at=rfc3339(job.created_at),
            updated_at=rfc3339(job.updated_at),
            timeline=tuple(timeline),
        )

    @property
    def finished(self) -> bool:
        """Whether it is archived, partial, failed or cancelled, and stays so unless a retry is requested."""
        return self.status in FINISHED


FINISHED = frozenset(status for status in Status if status.terminal)


class OutputShown(Output):
    """One archived image, with the job that made it."""

    job: Job


def shortfall(job: Job | models.Job) -> str:
    """Return that a gateway returned fewer images than requested, and its reasons; empty if it did not."""
    requested, result = job.request.num_images, job.result
    if result.images_returned is None or not (result.withheld or result.images_returned < (requested or 1)):
        return ""
    reasons = (f"image {one.index}: {one.reason or 'no reason given'}" for one in result.withheld)
    told = f"{result.images_returned}{f' of {requested}' if requested else ''} returned"
    return f"{told} ({'; '.join(reasons)})" if result.withheld else told


class JobPage(types.Resource):
    """Some jobs, newest first."""

    jobs: tuple[Job, ...]
    next_cursor: Annotated[types.JobId | None, Field(examples=[None])]
    """The `cursor` of the next page; null on the last one."""
    hints: tuple[str, ...] = types.absent(())
    """What of the query may be mistyped: an unknown key, operator, gateway or model, and the nearest one.
    Absent where there is nothing to say."""


def timeline(
    job: models.Job,
    deliveries: Sequence[models.Delivery],
    outputs: Sequence[models.Output],
    notifications: Sequence[Notification],
) -> list[TimelineEvent]:
    """Return everything that happened to a job, oldest first."""
    events: list[TimelineEvent] = [
        Moved(at=rfc3339(at), event="moved", status=status) for status, at in job.moves
    ]
    events += [Attempted.of(attempt) for attempt in job.attempt_log]
    events += [Delivered.of(delivery) for delivery in deliveries]
    events += [Stored(at=rfc3339(one.stored_at), event="stored", output=one.id) for one in outputs]
    events += [Notified.of(one) for one in notifications]
    # Times are all in one form, so they sort as text.
    return sorted(events, key=lambda event: event.at)


def proof(events: Iterable[TimelineEvent], found_by: str | None) -> str:
    """Return how a job's completion was proven, in words; empty while it is not.

    `events` is the job's timeline, oldest first.
    """
    applied = [one for one in events if isinstance(one, Delivered) and one.effect in {"ready", "failed"}]
    if applied and applied[-1].signature != Verdict.ANSWER:
        if applied[-1].signature == Verdict.VALID:
            return "by a callback with the gateway's valid signature"
        return "by a callback on the job's signed URL, without a signature of the gateway"
    return PROOFS.get(found_by or "", "")


PROOFS: Mapping[str, str] = {
    FoundBy.CALLBACK: "by a callback on the job's signed URL, confirmed by asking the gateway",
    FoundBy.POLL: "by asking the gateway; no callback came",
    FoundBy.POLL_ONLY: "by asking the gateway; callbacks are off without DARKROOM_PUBLIC_URL",
    FoundBy.SUBMISSION: "by the gateway's answer to the submission itself",
}
