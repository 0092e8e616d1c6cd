"""Define a notification in JSON: how its delivery goes, and the body that an application receives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from receiver.schemas.job import Job, StateValue
from receiver.schemas.output import Output
from receiver.schemas.types import Count, JobId, NotificationId, Resource, Time, time
from storage.models import rfc3339

if TYPE_CHECKING:
    from storage import models
    from storage.ledger import notifications


class Notification(Resource):
    """A webhook to your application: one for each time that a job finished."""

    id: NotificationId
    """`msg_<job id>_<number>`; its messages have it in the header `webhook-id`."""
    job_id: JobId
    number: Annotated[Count, Field(examples=[1])]
    """Which of its job's notifications it is, from 1; a job that is retried finishes again."""
    type: Annotated[str, Field(examples=["job.archived"])]
    """Such as `job.archived`."""
    state: StateValue
    """`pending`: waiting to be sent. `failed`: every retry failed."""
    host: Annotated[str, Field(examples=["app.example.com"])]
    """Where it goes. The rest of the URL is not shown, since it may hold a secret."""
    at: Time
    """When the job finished."""
    attempts: Annotated[Count, Field(examples=[1])]
    """Tries since then, or since the last replay."""
    tried_at: Time | None
    next_attempt_at: Annotated[Time | None, Field(examples=[None])]
    delivered_at: Time | None
    code: str | None
    """Why the last try failed; null if it did not."""
    message: str | None

    @classmethod
    def of(cls, one: notifications.Notification) -> Notification:
        """Build it from a notification of the ledger."""
        return cls.trusted(
            one,
            type=f"job.{one.status}",
            at=rfc3339(one.at),
            tried_at=time(one.tried_at),
            next_attempt_at=time(one.next_attempt_at),
            delivered_at=time(one.delivered_at),
        )


class NotificationTest(Resource):
    """What became of a test notification."""

    id: NotificationId
    """What its message has in `webhook-id`; it is in no list."""
    delivered: bool
    """Whether your application answered 2xx."""
    host: Annotated[str, Field(examples=["app.example.com"])]
    """Where it went."""
    at: Time
    took_ms: Annotated[Count, Field(examples=[42])]
    """Milliseconds until it was answered, or failed."""
    status: Annotated[int | None, Field(examples=[204])]
    """The HTTP status of the answer; null without one."""
    answer: str
    """The beginning of the answer's body; empty if the token's scope is not `admin` and the URL not that of
    DARKROOM_NOTIFY__URL."""
    code: str | None
    """Why it was not delivered; null if it was."""
    message: str | None
    fix: str | None
    """What to do about it."""


class NotificationPage(Resource):
    """Some notifications, those of the newest job first."""

    notifications: tuple[Notification, ...]
    next_cursor: Annotated[NotificationId | None, Field(examples=[None])]
    """The `cursor` of the next page; null on the last one."""


class NotifiedOutput(Output):
    """One archived image, as a notification has it."""

    image: Annotated[str, Field(description="The path of the image, below the address of your Darkroom.")]


class NotificationData(Resource):
    """The job as it was when it finished."""

    whole: bool
    """False if long texts were left out; `GET /v1/jobs/{id}` has them."""
    job: Job
    outputs: tuple[NotifiedOutput, ...]


class Message(Resource):
    """The body of a notification, by the Standard Webhooks specification."""

    type: Literal["job.archived", "job.partial", "job.failed", "job.cancelled"]
    timestamp: Time
    """When the job finished."""
    data: NotificationData

    @classmethod
    def of(
        cls, one: notifications.Notification, job: models.Job, outputs: Sequence[models.Output], links: str
    ) -> Message:
        """Build the body of a notification from the job as it was then, and its outputs."""
        notified = [
            NotifiedOutput.of(one, job, links, image=f"/v1/outputs/{one.id}/image") for one in outputs
        ]
        shown = Job.of(job, outputs, links)
        data = NotificationData(whole=True, job=shown, outputs=tuple(notified))
        return cls(type=f"job.{one.status}", timestamp=rfc3339(one.at), data=data)


class TestData(Resource):
    """What a test notification says."""

    message: str
    outputs: tuple[NotifiedOutput, ...]
    """None: here because an application may expect the list."""


class TestMessage(Resource):
    """The body of a test notification, which is about no job."""

    type: Literal["test"]
    timestamp: Time
    """When it was sent."""
    data: TestData

    @classmethod
    def at(cls, now: int) -> TestMessage:
        """Build the body of one that is sent at `now` (milliseconds)."""
        data = TestData(message="Darkroom can notify this application.", outputs=())
        return cls(type="test", timestamp=rfc3339(now), data=data)
