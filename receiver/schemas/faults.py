"""Describe validation errors of pydantic: the field, and what is wrong with it in a plain sentence."""

import re
from collections.abc import Mapping
from typing import Any

from receiver.schemas.tags import MEANING, TAG_FILTER, TAG_NAME
from receiver.schemas.types import JOB_EXAMPLE, JOB_ID, JOB_NAME, MESSAGE_ID, NUMBERED_ID

UNION_PARTS = frozenset({"str", "int", "constrained-str", "[key]"})
"""What pydantic adds to the path of a field that may have one of several types, or to that of a name."""

NO_NUL = r"^[^\x00]*$"
KEY = r"^[!-~]{1,255}$"
"""An idempotency key, as a header can hold it too."""

SENTENCES = {
    "missing": "is required",
    "extra_forbidden": "is unknown",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "model_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "list_type": "must be a list",
    "string_pattern_mismatch": "is not written as it must be",
    "string_too_short": "must have {min_length} characters or more",
    "string_too_long": "must have {max_length} characters at most",
    "too_short": "must have {min_length} entries or more",
    "too_long": "must have {max_length} entries at most",
    "int_parsing_size": "has too many digits",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} at most",
    "value_error": "{error}",
}
"""By pydantic's type of error, https://docs.pydantic.dev/latest/errors/validation_errors/."""

EVENT_ID = r"^([0-9]{1,18})(?:-([0-9]{1,15}))?$"
"""The id of an event: its number and its time."""
DIGEST_BEGINNING = "^[0-9a-fA-F]{4,64}$"

PATTERNS = {
    JOB_ID: f"must be the id of a job, such as {JOB_EXAMPLE}",
    JOB_NAME: f"must be the id of a job, or its first 8 characters or more, such as {JOB_EXAMPLE[:13]}",
    NUMBERED_ID: f"must be an id such as {JOB_EXAMPLE}.0",
    MESSAGE_ID: f"must be an id such as msg_{JOB_EXAMPLE}_1",
    TAG_NAME: MEANING,
    TAG_FILTER: MEANING,
    DIGEST_BEGINNING: "must be 4 to 64 hexadecimal digits, the beginning of a SHA-256",
    EVENT_ID: "must be the id of an event, such as 8731-1795000000000, or 0",
    NO_NUL: "must not contain the character NUL",
    KEY: "must be 1 to 255 printable ASCII characters, without spaces",
}


BAD_CURSOR = "is not the next_cursor of an earlier page; leave it out to begin with the first page"


def fault(one: Mapping[str, Any]) -> dict[str, str]:
    """Return one of pydantic's errors as a field and what is wrong with it."""
    where = ".".join(str(part) for part in one["loc"] if part not in UNION_PARTS)
    return {"field": where or "body", "message": BAD_CURSOR if where == "cursor" else message(one)}


_PLACE = re.compile(r"line \d+,? column \d+")


def _json(error: str) -> str:
    if "recursion" in error:
        return "is nested too deep"
    place = _PLACE.search(error)
    return f"is not valid JSON, from {place[0]} on" if place else "is not valid JSON"


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def message(one: Mapping[str, Any]) -> str:
    """Return what is wrong, as it reads after the name of a field."""
    context = {name: _number(value) for name, value in one.get("ctx", {}).items()}
    if one["type"] == "string_too_short" and context["min_length"] == 1:
        return "must not be empty"
    if one["type"] == "json_invalid":
        return _json(str(context["error"]))
    if sentence := PATTERNS.get(context.get("pattern", "")) or SENTENCES.get(one["type"]):
        return sentence.format(**context)
    return re.sub(r"^\w+ should ", "must ", str(one["msg"]))
