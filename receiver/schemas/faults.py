"""Describe validation errors of pydantic: the field, and what is wrong with it in a plain sentence."""

import re
from collections.abc import Mapping
from typing import Any

UNION_PARTS = frozenset({"str", "int", "constrained-str"})
"""What pydantic adds to the path of a field that may have one of several types."""

NO_NUL = r"^[^\x00]*$"
KEY = r"^[!-~]{1,255}$"
"""An idempotency key, as a header can hold it too."""
TAG_NAME = r"^[A-Za-z0-9_.-]{1,64}$"

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
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "must have {min_length} characters or more",
    "string_too_long": "must have {max_length} characters at most",
    "too_long": "must have {max_length} entries at most",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} at most",
    "json_invalid": "is not valid JSON: {error}",
    "value_error": "{error}",
}
"""By pydantic's type of error, https://docs.pydantic.dev/latest/errors/validation_errors/."""

PATTERNS = {
    NO_NUL: "must not contain the character NUL",
    KEY: "must be 1 to 255 printable ASCII characters, without spaces",
    TAG_NAME: "must be 1 to 64 letters, digits, dots, dashes or underscores",
}


def fault(one: Mapping[str, Any]) -> dict[str, str]:
    """Return one of pydantic's errors as a field and what is wrong with it."""
    where = ".".join(str(part) for part in one["loc"] if part not in UNION_PARTS)
    return {"field": where or "body", "message": message(one)}


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def message(one: Mapping[str, Any]) -> str:
    """Return what is wrong, as it reads after the name of a field."""
    context = {name: _number(value) for name, value in one.get("ctx", {}).items()}
    if one["type"] == "string_too_short" and context["min_length"] == 1:
        return "must not be empty"
    if sentence := PATTERNS.get(context.get("pattern", "")) or SENTENCES.get(one["type"]):
        return sentence.format(**context)
    return re.sub(r"^\w+ should ", "must ", str(one["msg"]))
