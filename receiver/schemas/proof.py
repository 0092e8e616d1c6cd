"""How a job's completion was proven, in a sentence: for the command line and for the gallery."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def proof(timeline: Iterable[Mapping[str, Any]], found_by: str | None) -> str:
    """Say how a job's completion was proven; empty while there is none.

    `timeline` is the job's, as the API shows it, oldest first.
    """
    applied = [event for event in timeline if event.get("effect") in {"ready", "failed"}]
    if applied:
        signature = applied[-1]["signature"]
        if signature == "valid":
            return "a callback with the gateway's valid signature over its body told it"
        return "a callback on our signed URL told it; it has no signature of the gateway"
    return {
        "callback": "a callback on our signed URL gave the hint, and the gateway confirmed it when asked",
        "poll": "no callback brought it: the gateway told it when asked",
        "poll_only": "the gateway told it when asked; callbacks are off without DARKROOM_PUBLIC_URL",
    }.get(found_by or "", "")
