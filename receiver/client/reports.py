"""What the service tells beside jobs and outputs: status, gateways, usage, counts and notifications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from receiver.client.models import STATUSES


@dataclass(frozen=True, slots=True)
class Circuit:
    """A gateway or an image host that failed lately. `state`: closed, open (left alone) or half_open."""

    name: str
    state: str
    code: str
    message: str
    at_fault: str
    failures: int
    retry_at: str | None


@dataclass(frozen=True, slots=True)
class Gateways:
    """The gateways that are configured, and what failed lately: gateways and image hosts."""

    names: tuple[str, ...]
    circuits: tuple[Circuit, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Facet:
    """How many outputs have one value of what they are counted by."""

    value: str
    outputs: int


@dataclass(frozen=True, slots=True)
class Facets:
    """What a search finds, counted. Unless `complete`, only the newest `counted` outputs were counted."""

    counted: int
    complete: bool
    gateway: tuple[Facet, ...]
    model: tuple[Facet, ...]
    day: tuple[Facet, ...]
    tag: tuple[Facet, ...]
    """Each as `name=value`."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Notification:
    """What an application was told, or is to be told, of one time that a job came to rest."""

    id: str
    job_id: str
    type: str
    """Such as `job.archived`."""
    state: str
    """owed, delivered or given_up."""
    host: str
    attempts: int
    next_attempt_at: str | None
    delivered_at: str | None
    code: str | None
    message: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Page:
    """How many jobs of one gateway, or of all of them, are where."""

    accepted: int
    counts: Mapping[str, int]
    balanced: bool
    found_by_polling: int
    oldest_unfinished_age_s: float | None


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """Job counts: in total, and by gateway."""

    total: Page
    gateways: Mapping[str, Page]
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Spent:
    """What some jobs cost and made. `credits` is None where no job's are known.

    `jobs_without_credits` are those of `jobs` whose cost is not known; what earlier submissions of them cost
    is in the sums all the same. `credits_estimated` is the part of `credits` that comes from price lists;
    None if none does.
    """

    jobs: int
    jobs_without_credits: int
    outputs: int
    credits: float | None
    credits_estimated: float | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What was spent in a time: pairs of a gateway, model, day or tag's value (None: no such tag) and it.

    `others` is what the groups beyond the limit come to, and None if there are none.
    """

    by: str
    tag: str | None
    since: str
    until: str
    groups: tuple[tuple[str | None, Spent], ...]
    others: Spent | None
    total: Spent
    raw: Mapping[str, Any] = field(repr=False, compare=False)


def to_notification(view: Mapping[str, Any]) -> Notification:
    """Read a notification; raises KeyError or TypeError if it is none."""
    return Notification(**{name: view[name] for name in _NOTIFICATION}, raw=view)


def to_status(view: Mapping[str, Any]) -> ServiceStatus:
    """Parse a status; raises KeyError or TypeError if it is none."""
    gateways = {name: _page(page) for name, page in view["gateways"].items()}
    return ServiceStatus(_page(view), gateways, raw=view)


def to_gateways(view: Mapping[str, Any]) -> Gateways:
    """Read how the gateways are; raises KeyError or TypeError if it is not told."""
    entries = [*view["gateways"], *view["image_hosts"]]
    failed = [(entry["name"], entry["circuit"]) for entry in entries if entry["circuit"]]
    return Gateways(
        names=tuple(entry["name"] for entry in view["gateways"]),
        circuits=tuple(Circuit(name, *(circuit[key] for key in _CIRCUIT)) for name, circuit in failed),
        raw=view,
    )


def to_usage(view: Mapping[str, Any]) -> Usage:
    """Read what was spent; raises KeyError or TypeError if it is not told."""
    return Usage(
        **{name: view[name] for name in ("by", "tag", "since", "until")},
        groups=tuple((group["value"], _spent(group)) for group in view["groups"]),
        others=view["others"] and _spent(view["others"]),
        total=_spent(view["total"]),
        raw=view,
    )


def _spent(view: Mapping[str, Any]) -> Spent:
    return Spent(**{name: view[name] for name in _SPENT})


def to_facets(view: Mapping[str, Any]) -> Facets:
    """Read counts; raises KeyError or TypeError if they are none."""
    kinds = {name: tuple(_facet(one) for one in view[name]) for name in ("gateway", "model", "day", "tag")}
    return Facets(counted=view["counted"], complete=bool(view["complete"]), **kinds, raw=view)


def _facet(view: Mapping[str, Any]) -> Facet:
    return Facet(str(view["value"]), int(view["outputs"]))


def _page(view: Mapping[str, Any]) -> Page:
    return Page(
        accepted=view["accepted"],
        counts={status: view[status] for status in STATUSES},
        balanced=view["balanced"],
        found_by_polling=view["found_by_polling"],
        oldest_unfinished_age_s=view["oldest_unfinished_age_s"],
    )


_CIRCUIT = ("state", "code", "message", "at_fault", "failures", "retry_at")
_SPENT = ("jobs", "jobs_without_credits", "outputs", "credits", "credits_estimated")
_NOTIFICATION = (
    *("id", "job_id", "type", "state", "host", "attempts", "next_attempt_at", "delivered_at", "code"),
    "message",
)
