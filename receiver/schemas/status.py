"""Define the service's status in JSON: job counts, gateways with their circuit breakers, and health."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field

from receiver.schemas.types import NEWER_TOO, AtFault, Count, GatewayName, Resource, Time, time
from storage.models import Status, rfc3339

if TYPE_CHECKING:
    from storage import models
    from storage.archive.store_facts import StoreFacts


class JobCounts(Resource):
    """How many jobs of one gateway are in each state."""

    # `ServiceStatus` inherits these, and docstrings of fields are not inherited.
    accepted: Annotated[int, Field(ge=0, description="Every job ever accepted.", examples=[128])]
    queued: Count
    submitting: Count
    running: Annotated[Count, Field(examples=[2])]
    ready: Annotated[Count, Field(examples=[1])]
    archived: Annotated[Count, Field(examples=[121])]
    partial: Annotated[Count, Field(examples=[1])]
    failed: Annotated[Count, Field(examples=[3])]
    cancelled: Count
    balanced: Annotated[bool, Field(description="Whether every accepted job is accounted for.")]
    found_by_polling: Annotated[int, Field(ge=0, description="Results whose callback never came.")]
    oldest_unfinished_age_s: Annotated[
        float | None, Field(ge=0, description="Null if every job is finished.", examples=[4.2])
    ]

    @classmethod
    def of(cls, counts: models.JobCounts, now: int, **more: Any) -> Self:
        """Build it from the ledger's counts at `now` (milliseconds); `more` are values of further fields."""
        oldest = counts.oldest_unfinished_at
        more |= {status.value: counts.counts[status] for status in Status}
        age_s = None if oldest is None else max(0.0, (now - oldest) / 1000)
        return cls.trusted(counts, oldest_unfinished_age_s=age_s, **more)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many jobs are in each state, in the order of a job's life."""
        return {status.value: getattr(self, status) for status in Status}


class Store(Resource):
    """What the object store was seen to support."""

    addressing: Annotated[Literal["path", "virtual"] | str, NEWER_TOO]
    """Where URLs name the bucket: in the path, or in the host name."""
    create_only: Annotated[Literal["honoured", "ignored", "refused"] | str, NEWER_TOO]
    """What it does with the header If-None-Match, which keeps a write from overwriting an object."""
    sha256: Annotated[Literal["honoured", "ignored", "refused"] | str, NEWER_TOO]
    """What it does with the header x-amz-checksum-sha256, by which it verifies what it is sent."""
    returns_sha256: bool
    """Whether it returns the SHA-256 of an object; otherwise each image is read back in full."""
    lists: bool
    """Whether the access key may list the bucket."""
    deletes: bool | None
    """Whether the access key may delete; null if that was not tried."""
    summary: Annotated[str, Field(examples=["Writes are create-only (If-None-Match)."])]
    """How objects are written and verified."""


class ServiceStatus(JobCounts):
    """How many jobs are in each state, in total and by gateway; and what the object store supports."""

    gateways: Annotated[Mapping[str, JobCounts], Field(description="The same counts for each gateway.")]
    store: Annotated[Store, Field(description="What the object store was seen to support.")]
    problems: Annotated[Mapping[str, str], Field(examples=[{}])] = {}
    """Why jobs do not go on, and what to do: `history` if the ledger lacks jobs that the bucket has records
    of, `workers` if none works."""

    @classmethod
    def of_gateways(
        cls,
        total: models.JobCounts,
        by: Mapping[str, models.JobCounts],
        now: int,
        store: StoreFacts,
        problems: Mapping[str, str],
    ) -> Self:
        """Build it from the counts of all jobs, and of each gateway's, and from problems by name."""
        gateways = {name: JobCounts.of(counts, now) for name, counts in sorted(by.items())}
        return cls.of(total, now, gateways=gateways, store=Store.trusted(store), problems=problems)


class Circuit(Resource):
    """The circuit breaker of a gateway or an image host that failed recently."""

    state: Annotated[Literal["closed", "open", "half_open"] | str, NEWER_TOO]
    """`closed`: failures are counted. `open`: requests are paused. `half_open`: one request may pass."""
    step: Annotated[str, Field(examples=["send"])]
    """What failed there last: `send`, `ask` or `download`."""
    code: Annotated[str, Field(examples=["gateway_unavailable"])]
    message: Annotated[str, Field(examples=["It answered 503."])]
    at_fault: AtFault
    failures: Annotated[Count, Field(examples=[5])]
    """Failures in a row."""
    since: Time
    """When the first of them was."""
    retry_at: Time | None
    """When the next request is let through; null while it is closed."""

    @classmethod
    def of(cls, circuit: models.Circuit, now: int) -> Circuit:
        """Build it from the ledger's circuit, as it is at `now` (milliseconds)."""
        times = {"since": rfc3339(circuit.since), "retry_at": time(circuit.retry_at)}
        return cls.trusted(circuit, state=circuit.state(now), **times)


class GatewayState(Resource):
    """A gateway that is configured here, and its circuit breaker if it failed recently."""

    name: GatewayName
    circuit: Circuit | None


class ImageHost(Resource):
    """An image host that failed recently."""

    name: Annotated[str, Field(examples=["images.example.com"])]
    circuit: Circuit


class Gateways(Resource):
    """The state of the gateways and their image hosts."""

    gateways: tuple[GatewayState, ...]
    image_hosts: tuple[ImageHost, ...]

    @classmethod
    def of(cls, names: Sequence[str], circuits: Iterable[models.Circuit], now: int) -> Gateways:
        """Build it from the gateways' names and the ledger's circuits, as they are at `now`."""
        found = {(one.kind, one.name): Circuit.of(one, now) for one in circuits}
        states = [GatewayState(name=name, circuit=found.get(("gateway", name))) for name in names]
        hosts = [
            ImageHost(name=name, circuit=one) for (kind, name), one in found.items() if kind != "gateway"
        ]
        return cls(gateways=tuple(states), image_hosts=tuple(hosts))

    @property
    def circuits(self) -> tuple[tuple[str, Circuit], ...]:
        """The gateways and image hosts that failed recently: name and circuit breaker of each."""
        failed = [(one.name, one.circuit) for one in self.gateways if one.circuit]
        return (*failed, *((one.name, one.circuit) for one in self.image_hosts))


class Alive(Resource):
    """The process runs."""

    status: Literal["ok"]


class Readiness(Resource):
    """Whether every part can be used now."""

    status: Literal["ready", "not ready"]
    checks: Annotated[
        Mapping[str, str],
        Field(examples=[dict.fromkeys(("ledger", "archive", "results", "history", "workers"), "ok")]),
    ]
    """`ok` for each part, or what is wrong with it."""
    warnings: Annotated[Mapping[str, str], Field(examples=[{}])]
    """What an operator should know although work continues, such as a paused gateway."""

    @property
    def ready(self) -> bool:
        """Whether every check passed."""
        return self.status == "ready"
