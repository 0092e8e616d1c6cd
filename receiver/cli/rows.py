"""The rows of a file: each is a job to submit."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

TEXTS = ("gateway", "model", "prompt", "negative_prompt", "aspect_ratio", "seed", "notify_url")
COLUMNS = (*TEXTS, "num_images", "unsupported", "idempotency_key")
GROUPS = ("params", "tags")
EXPORTED = ("gateway", "model", "prompt", "seed", "tags", "model_requested", "seed_requested")
"""The columns of an export by which its images can be made again."""


@dataclass(frozen=True, slots=True)
class Row:
    """One job to submit: `fields` as `Darkroom.submit` takes them. `line` counts from 1."""

    line: int
    fields: Mapping[str, Any]


def unknown_names(kind: str, names: Sequence[str]) -> str:
    """Return the error about names of columns or fields that no job has, with the nearest of each."""
    known = (*COLUMNS, *GROUPS)
    near = {name: next(iter(get_close_matches(name.lower()[:60], known, 1)), None) for name in names}
    told = (f"{name[:60]!r}" + (f" (did you mean {meant}?)" if meant else "") for name, meant in near.items())
    use = ", ".join((*COLUMNS, "params.NAME", "tags.NAME"))
    return f"unknown {kind} {', '.join(told)}; use {use}, or --ignore-unknown to leave it out"


def is_export(names: Collection[str]) -> bool:
    """Return whether these are the columns of what `darkroom export` writes."""
    return {"job_id", "sha256"} <= set(names)


def from_export(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a job that makes an exported image again.

    The model is as it was requested, and the seed as it was reported, if the gateway reported one.
    """
    kept = {name: value for name, value in fields.items() if name in EXPORTED and value is not None}
    model, seed = kept.pop("model_requested", None), kept.pop("seed_requested", None)
    better = {"model": model or kept.get("model"), "seed": kept.get("seed") or seed}
    return kept | {name: value for name, value in better.items() if value is not None}
