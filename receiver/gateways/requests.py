"""Build adapters' requests: JSON bodies, quoted paths; validate parameters by the gateways' documents."""

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

OUR_FIELDS = ("aspect_ratio", "negative_prompt", "num_images", "seed")
ADVICE = {name: f"give it as the field {name}, so that the archive knows it" for name in OUR_FIELDS}
"""Why `params` may not have a name: by our name of the field."""

Fault = dict[str, str]


def fault(field: str, message: str) -> Fault:
    """Return one validation error of a request."""
    return {"field": field, "message": message}


def usable_key(key: str, setting: str) -> str:
    """Return an API key, stripped. Raises SettingsError, which does not show it, if no header can hold it."""
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
    """Percent-encode an id so that it stays one segment of a path."""
    quoted = quote(text, safe="", errors="replace")
    # "." and ".." are not encoded by `quote`, and lead elsewhere.
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def given(job_request: JobRequest) -> dict[str, Any]:
    """Return the parameters that the user gave and did not list in `ignored`, by our names."""
    values = {name: getattr(job_request, name) for name in OUR_FIELDS}
    return {name: v for name, v in values.items() if v is not None and name not in job_request.ignored}


def whole_number(text: str) -> int | None:
    """Parse a seed as an exact whole number; None if it is not one in plain spelling."""
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else None


def number_for_seed(values: dict[str, Any]) -> dict[str, Any]:
    """Return `given` values with a numeric seed as a number; text stays, for the gateway to refuse."""
    number = whole_number(values.get("seed", ""))
    return values if number is None else {**values, "seed": number}


def text_faults(field: str, text: str, least: int, most: int) -> Iterator[Fault]:
    """Validate a text's length in characters."""
    if not least <= len(text) <= most:
        yield fault(field, f"must have {least} to {most} characters, not {len(text)}")


def choice_faults(field: str, value: object, choices: Collection[str]) -> Iterator[Fault]:
    """Validate a value against the documented choices."""
    if value not in choices:
        yield fault(field, f"must be one of {', '.join(choices)}")


def seed_faults(text: str, least: int | None = None, most: int | None = None) -> Iterator[Fault]:
    """Validate a seed for a gateway that accepts whole numbers."""
    number = whole_number(text)
    if number is None:
        yield fault("seed", "must be a whole number: this gateway accepts no other seed")
    elif least is not None and most is not None and not least <= number <= most:
        yield fault("seed", f"must be between {least} and {most}")


def params_faults(params: Mapping[str, Any], taken: Mapping[str, str]) -> Iterator[Fault]:
    """Validate `params`: plain JSON, without the names in `taken`, which maps each to the advice."""
    for name, advice in taken.items():
        if name in params:
            yield fault(f"params.{name}", advice)
    try:
        json.dumps(params, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        yield fault("params", "must be plain JSON values")
