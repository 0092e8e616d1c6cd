"""What the API answers, as plain values: jobs, outputs and books; `raw` keeps what is not known here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FINISHED = frozenset({"archived", "partial", "failed"})
"""Where a job rests."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a job was submitted with. `ignored` names the parameters that its gateway does not have."""

    model: str
    prompt: str
    negative_prompt: str | None
    aspect_ratio: str | None
    num_images: int | None
    seed: str | None
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reported:
    """What the gateway said of a job; every field may be unknown."""

    model: str | None
    seed: str | None
    credits: float | None
    credits_estimated: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed or is partial. `at_fault`: request, gateway, image, archive or operator."""

    code: str
    message: str
    at_fault: str


@dataclass(frozen=True, slots=True)
class Job:
    """One submission to one gateway. Times are RFC 3339; `raw` is the whole answer as it came."""

    id: str
    gateway: str
    gateway_job_id: str | None
    status: str
    request: Asked
    result: Reported
    error: Failure | None
    outputs: tuple[str, ...]
    found_by: str | None
    created_at: str
    updated_at: str
    timeline: tuple[Mapping[str, Any], ...]
    """What happened to it, oldest first; empty in lists."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def finished(self) -> bool:
        """Whether it is archived, partial or failed, and moves no more by itself."""
        return self.status in FINISHED


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
class Output:
    """One archived image, and what made it. `raw` is the whole answer as it came."""

    id: str
    job_id: str
    index: int
    key: str
    sha256: str
    bytes: int
    media_type: str
    width: int
    height: int
    seed: str | None
    """The gateway's own; None if it gave none."""
    seed_requested: str | None
    stored_at: str
    gateway: str
    model: str
    prompt: str
    tags: Mapping[str, str]
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def file_name(self) -> str:
        """`<output id>.<extension>`, and never a path: it comes from the other side."""
        return re.sub(r"[^\w.-]", "_", f"{self.id}.{self.key.rpartition('.')[2]}")


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
class Page:
    """How many jobs of one gateway, or of all of them, are where."""

    accepted: int
    counts: Mapping[str, int]
    balanced: bool
    found_by_polling: int
    oldest_unfinished_age_s: float | None


@dataclass(frozen=True, slots=True)
class Books:
    """The books: all jobs together, and a page for each gateway."""

    total: Page
    gateways: Mapping[str, Page]
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Spent:
    """What some jobs cost and made. `credits` is None where no job's are known.

    `jobs_without_credits` are those of `jobs` whose cost is not known and in no sum. `credits_estimated` is
    the part of `credits` that comes from price lists; None if none does.
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


STATUSES = ("queued", "submitting", "running", "ready", "archived", "partial", "failed")
"""Every place where a job can be, in the order of its life."""


def to_job(view: Mapping[str, Any]) -> Job:
    """Read a job; raises KeyError or TypeError if it is none."""
    request, result, error = view["request"], view["result"], view["error"]
    return Job(
        **{name: view[name] for name in ("id", "gateway", "gateway_job_id", "status")},
        request=Asked(
            **{name: request[name] for name in _ASKED},
            ignored=tuple(request.get("ignored", ())),
        ),
        result=Reported(**{name: result[name] for name in _REPORTED}),
        error=error and Failure(error["code"], error["message"], error["at_fault"]),
        outputs=tuple(view["outputs"]),
        found_by=view.get("found_by"),
        created_at=view["created_at"],
        updated_at=view["updated_at"],
        timeline=tuple(view.get("timeline", ())),
        raw=view,
    )


def to_output(view: Mapping[str, Any]) -> Output:
    """Read an output; raises KeyError or TypeError if it is none."""
    return Output(
        **{name: view[name] for name in _OUTPUT}, seed_requested=view.get("seed_requested"), raw=view
    )


def to_books(view: Mapping[str, Any]) -> Books:
    """Read the books; raises KeyError or TypeError if they are none."""
    return Books(_page(view), {name: _page(page) for name, page in view["gateways"].items()}, raw=view)


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


def to_record(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record as it came; raises KeyError or TypeError if it is none."""
    return view if view["schema"] and view["outputs"] else {}


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


_ASKED = ("model", "prompt", "negative_prompt", "aspect_ratio", "num_images", "seed", "params", "tags")
_CIRCUIT = ("state", "code", "message", "at_fault", "failures", "retry_at")
_REPORTED = ("model", "seed", "credits", "credits_estimated")
_SPENT = ("jobs", "jobs_without_credits", "outputs", "credits", "credits_estimated")
_OUTPUT = (
    *("id", "job_id", "index", "key", "sha256", "bytes", "media_type", "width", "height", "seed"),
    *("stored_at", "gateway", "model", "prompt", "tags"),
)
