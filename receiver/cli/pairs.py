"""Parse values by name, as `--param`, `--tag` and the columns of a file give them."""

import json
from collections.abc import Sequence
from typing import Any


class BadInput(Exception):
    """The input is malformed; the message has a line for each error."""


def nested(pairs: Sequence[str], option: str) -> dict[str, Any]:
    """Parse `k=v` pairs: `a.b=1` is `{"a": {"b": 1}}`; a value that is JSON is parsed as JSON."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, value = _split(pair, option)
        put(found, name.split("."), json_or_text(value), f"{option} {pair}")
    return found


def flat(pairs: Sequence[str], option: str) -> dict[str, str]:
    """Parse `k=v` pairs whose values stay text."""
    return dict(_split(pair, option) for pair in pairs)


def _split(pair: str, option: str) -> tuple[str, str]:
    name, sign, value = pair.partition("=")
    if not sign or not name or not all(name.split(".")):
        raise BadInput(f"{option} {pair}: must be name=value")
    return name, value


def json_or_text(text: str) -> Any:
    """Parse a text that is JSON; return any other as it is."""
    try:
        return json.loads(text, parse_constant=no_constant)
    except (ValueError, RecursionError):
        return text


def no_constant(text: str) -> Any:
    """Refuse NaN and Infinity, which `json` would parse."""
    raise ValueError(f"{text} is not JSON")


def put(target: dict[str, Any], path: Sequence[str], value: Any, where: str) -> None:
    """Put a value at a path of names; raise BadInput if there is one already."""
    *groups, name = path
    for group in groups:
        target = target.setdefault(group, {})
        if not isinstance(target, dict):
            raise BadInput(f"{where}: {group} already has a value")
    if name in target:
        raise BadInput(f"{where}: {name} already has a value")
    target[name] = value
