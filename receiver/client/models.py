"""What the API answers, as plain values: jobs and outputs; `raw` keeps what is not known here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STATUSES = ("queued", "submitting", "running", "ready", "archived", "partial", "failed")
"""Every place where a job can be, in the order of its life."""

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
    credits_before: float = 0.0
    """What earlier submissions cost, as far as known; not in `credits`."""


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


def to_job(view: Mapping[str, Any]) -> Job:
    """Read a job; raises KeyError or TypeError if it is none."""
    request, result, error = view["request"], view["result"], view["error"]
    return Job(
        **{name: view[name] for name in ("id", "gateway", "gateway_job_id", "status")},
        request=Asked(
            **{name: request[name] for name in _ASKED},
            ignored=tuple(request.get("ignored", ())),
        ),
        result=Reported(
            **{name: result[name] for name in _REPORTED},
            credits_before=result.get("credits_before", 0.0),
        ),
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


def to_record(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record as it came; raises KeyError or TypeError if it is none."""
    return view if view["schema"] and view["outputs"] else {}


_ASKED = ("model", "prompt", "negative_prompt", "aspect_ratio", "num_images", "seed", "params", "tags")
_REPORTED = ("model", "seed", "credits", "credits_estimated")
_OUTPUT = (
    *("id", "job_id", "index", "key", "sha256", "bytes", "media_type", "width", "height", "seed"),
    *("stored_at", "gateway", "model", "prompt", "tags"),
)
