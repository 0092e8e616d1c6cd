"""What adapters share in asking: JSON requests, safe paths, and the faults that a request may have."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx

from receiver.errors import SettingsError
from storage.models import JobRequest

USER_AGENT = "darkroom"

_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,99}", re.ASCII)

Fault = dict[str, str]


def fault(field: str, message: str) -> Fault:
    """One thing that is wrong with a request."""
    return {"field": field, "message": message}


def usable_key(key: str, setting: str) -> str:
    """Answer an API key as it can stand in a header; raises SettingsError, which does not show it."""
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(f"{setting} is empty or has characters that no API key has.")
    return key


def request(
    method: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any] | None = None
) -> httpx.Request:
    """Build a request; the same arguments give the same bytes."""
    content = None if body is None else json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    common = {"Accept": "application/json", "User-Agent": USER_AGENT}
    if content is not None:
        common["Content-Type"] = "application/json"
    return httpx.Request(method, url, headers={**headers, **common}, content=content)


def path_part(text: str) -> str:
    """Quote an id so that it stays one step of a path, whatever is in it."""
    quoted = quote(text, safe="", errors="replace")
    # "." and ".." are steps to elsewhere, and quoting leaves them alone.
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def given(job_request: JobRequest) -> dict[str, Any]:
    """Answer the parameters that the user gave and did not allow us to drop, by our names for them."""
    names = ("aspect_ratio", "negative_prompt", "num_images", "seed")
    values = {name: getattr(job_request, name) for name in names}
    return {name: v for name, v in values.items() if v is not None and name not in job_request.ignored}


def whole_number(text: str) -> int | None:
    """Read a seed as an exact whole number; None if it is not one in its plain spelling."""
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else None


def text_faults(field: str, text: str, least: int, most: int) -> Iterator[Fault]:
    """Check a text's length in characters."""
    if not least <= len(text) <= most:
        yield fault(field, f"must have {least} to {most} characters, not {len(text)}")


def choice_faults(field: str, value: object, choices: Collection[str]) -> Iterator[Fault]:
    """Check a value against the ones that the gateway documents."""
    if value not in choices:
        yield fault(field, f"must be one of {', '.join(choices)}")


def seed_faults(text: str, least: int | None = None, most: int | None = None) -> Iterator[Fault]:
    """Check a seed for a gateway that takes whole numbers."""
    number = whole_number(text)
    if number is None:
        yield fault("seed", "must be a whole number: this gateway takes no other seed")
    elif least is not None and most is not None and not least <= number <= most:
        yield fault("seed", f"must be between {least} and {most}")


def params_faults(params: Mapping[str, Any], taken: Mapping[str, str]) -> Iterator[Fault]:
    """Check that `params` can be sent, and leave alone what has its own place.

    `taken` maps each name that `params` may not have to what the user should do instead.
    """
    for name, advice in taken.items():
        if name in params:
            yield fault(f"params.{name}", advice)
    try:
        json.dumps(params, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        yield fault("params", "must be plain JSON values")
