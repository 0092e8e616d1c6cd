"""Build requests by a gateway's table: judge parameters, fill templates, quote paths, encode bodies."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from receiver.errors import SettingsError
from receiver.gateways.table import Family, Table
from storage.models import JobRequest

if TYPE_CHECKING:
    import httpx

USER_AGENT = "darkroom"

OUR_FIELDS = ("aspect_ratio", "negative_prompt", "num_images", "seed")
"""The fields of a submission that a gateway may not support."""

_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,99}", re.ASCII)
_HOLE = re.compile(r"\{([a-z_]+(?:\.[\w-]+)?)(?::([a-z]+(?:\.[\w-]+)?))?(?:=([^{}]*))?\}", re.ASCII)
_BOUNDARY = re.compile(rb"boundary=([0-9a-f]{32})")
_PART = re.compile(rb'\r\nContent-Disposition: form-data; name="([^"]*)"\r\n(?:[^\r\n]+\r\n)*\r\n', re.DOTALL)

Values = Mapping[str, Any]
"""What the holes of a template are filled with; None is no value."""
Maps = Mapping[str, Mapping[str, Any]]


def usable_key(key: str, setting: str) -> str:
    """Return an API key, stripped. Raises SettingsError, which does not show it, if no header can hold it."""
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(f"{setting} is empty or has characters that no API key has.")
    return key


def request(
    method: str, url: str, headers: Mapping[str, str], body: object = None, *, kind: str = "json"
) -> httpx.Request:
    """Build a request; the same arguments give the same bytes. `kind` is that of `table.Submit`."""
    import httpx  # a process that only takes callbacks does without

    common = {"Accept": "application/json", "User-Agent": USER_AGENT}
    if body is None:
        return httpx.Request(method, url, headers={**headers, **common})
    if kind == "multipart":
        return _form(method, url, {**headers, **common}, body)
    value = [body] if kind == "json-array" else body
    content = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    common["Content-Type"] = "application/json"
    return httpx.Request(method, url, headers={**headers, **common}, content=content)


def sent(made: httpx.Request) -> dict[str, Any] | None:
    """Return the body of a request as an object, to be kept: of a list its only one, of a form the fields."""
    if not made.content:
        return None
    if found := _BOUNDARY.search(made.headers.get("content-type", "").encode()):
        parts = made.content.split(b"--" + found[1])
        named = (_PART.match(part) for part in parts)
        return {
            one[1].decode(): part[one.end() :].removesuffix(b"\r\n").decode()
            for one, part in zip(named, parts, strict=True)
            if one
        }
    value: Any = json.loads(made.content)
    only: dict[str, Any] = value[0] if isinstance(value, list) else value
    return only


def path_part(text: str) -> str:
    """Percent-encode an id so that it stays one segment of a path."""
    quoted = quote(text, safe="", errors="replace")
    # "." and ".." are not encoded by `quote`, and lead elsewhere.
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def path(template: str, values: Values) -> str:
    """Fill the holes of a path, which stay the segments that they are; a model keeps its slashes."""

    def quoted(hole: re.Match[str]) -> str:
        value = str(_value(hole, values, {}))
        parts = value.split("/") if hole[1].startswith("model") else [value]
        return "/".join(map(path_part, parts))

    return _HOLE.sub(quoted, template)


def with_query(url: str, query: Mapping[str, Any]) -> str:
    """Return a URL with further parameters; those that are None are left out."""
    given = {name: value for name, value in query.items() if value is not None}
    return f"{url}{'&' if '?' in url else '?'}{urlencode(given, quote_via=quote, safe='')}" if given else url


def filled(template: Any, values: Values, maps: Maps) -> Any:
    """Fill a template: see `table.Submit.body`. None if nothing of it is left."""
    if isinstance(template, str):
        hole = _HOLE.fullmatch(template)
        return template if hole is None else _value(hole, values, maps)
    if isinstance(template, Mapping):
        inner = {key: filled(each, values, maps) for key, each in template.items()}
        left = {key: value for key, value in inner.items() if value is not None}
        return left if left or not template else None
    if isinstance(template, list | tuple):
        return [value for each in template if (value := filled(each, values, maps)) is not None]
    return template


def holes(template: Any) -> Iterator[tuple[str, str | None]]:
    """Yield the name and the cast of each hole in a template."""
    if isinstance(template, str):
        if hole := _HOLE.fullmatch(template):
            yield hole[1], hole[2]
    elif isinstance(template, Mapping | list | tuple):
        for each in template.values() if isinstance(template, Mapping) else template:
            yield from holes(each)


def cast(value: Any, how: str | None, choices: Mapping[str, Any]) -> Any:
    """Turn our value into the gateway's; a seed that is no whole number stays, for the gateway to refuse."""
    kind, _, key = (how or "").partition(".")
    match kind:
        case "int":
            return (
                value
                if isinstance(value, int)
                else whole_number(value)
                if whole_number(value) is not None
                else value
            )
        case "str":
            return str(value)
        case "x":
            return str(value).replace(":", "x")
        case "map":
            meant = choices.get(str(value))
            return meant.get(key) if key and isinstance(meant, Mapping) else meant
    return value


def sizes(pairs: str) -> dict[str, dict[str, int]]:
    """Return a map of aspect ratios to sizes in pixels, of `16:9=1280x720 ...`, with each turned as well."""
    found: dict[str, dict[str, int]] = {}
    for pair in pairs.split():
        ratio, _, size = pair.partition("=")
        wide, high = map(int, size.split("x"))
        found[ratio] = {"width": wide, "height": high}
        found[":".join(reversed(ratio.split(":")))] = {"width": high, "height": wide}
    return found


def given(job_request: JobRequest) -> dict[str, Any]:
    """Return the parameters that the user gave and did not list in `ignored`, by our names."""
    values = {name: getattr(job_request, name) for name in OUR_FIELDS}
    return {name: v for name, v in values.items() if v is not None and name not in job_request.ignored}


def whole_number(text: str) -> int | None:
    """Parse a seed as an exact whole number; None if it is not one in plain spelling."""
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else None


def put(body: dict[str, Any], place: str, value: Any) -> None:
    """Put a value at a dotted path of a body."""
    *outer, last = place.split(".")
    for step in outer:
        body = body.setdefault(step, {})
    body[last] = value


def _value(hole: re.Match[str], values: Values, maps: Maps) -> Any:
    name, how, default = hole.groups()
    value = values.get(name)
    if value is None:
        return default
    return cast(value, how, maps.get(name, {}))


def _form(method: str, url: str, headers: Mapping[str, str], body: object) -> httpx.Request:
    import httpx

    assert isinstance(body, Mapping)
    fields = {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}
    # By its content, so that the same fields give the same bytes.
    boundary = hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:32]
    made = httpx.Request(
        method,
        url,
        headers={**headers, "Content-Type": f"multipart/form-data; boundary={boundary}"},
        files={name: (None, value.encode("utf-8", "replace")) for name, value in fields.items()},
    )
    made.read()
    return made


ADVICE = {name: f"give it as the field {name}, so that the archive knows it" for name in OUR_FIELDS}
"""Why `params` may not have a name: by our name of the field."""
SET_HERE = "is set by Darkroom"
_NUMBERS = {"seed": "int", "num_images": "int"}
"""The casts that hold where a table names none."""

Fault = dict[str, str]


def unsupported(table: Table, request: JobRequest) -> Mapping[str, str]:
    """Return each parameter that has no place, with the reason; see `Gateway.unsupported`."""
    asked = {name for name in OUR_FIELDS if getattr(request, name) is not None}
    family = table.family(request.model)
    if family is None:
        reason = f"it is not known where {request.model} on {table.title} takes it; use params"
        return dict.fromkeys(sorted(asked), reason)
    if family.one_image and request.num_images == 1:
        asked.discard("num_images")
    missing = sorted(asked - family.places.keys() - {name for name, _ in holes(table.submit.body)})
    return dict.fromkeys(missing, f"{request.model} on {table.title} has no such parameter; leave it out")


def faults(table: Table, request: JobRequest) -> list[Fault]:
    """Validate by the gateway's documents; see `Gateway.faults`."""
    family = table.family(request.model)
    judged = family or Family(most_prompt=max((each.most_prompt or 0 for each in table.families), default=0))
    return [
        *text_faults("prompt", request.prompt, judged.least_prompt, judged.most_prompt or None),
        *(_field_faults(table, family, request) if family else ()),
        *_params_faults(request.params, _taken(table, family, request)),
        *(_key_faults(family, request) if family else ()),
    ]


def estimate(prices: Mapping[str, float], request: JobRequest) -> float | None:
    """Return the published price for all images together; None for a model without one."""
    price = prices.get(request.model)
    return None if price is None else float(price * given(request).get("num_images", 1))


def placed(table: Table, family: Family, request: JobRequest) -> dict[str, Any]:
    """Return the gateway's keys for our own fields."""
    found: dict[str, Any] = {}
    for name, value in given(request).items():
        for key, how in places(family, name):
            found[key] = cast(
                value, how or _NUMBERS.get(name), family.maps.get(name, table.maps.get(name, {}))
            )
    return found


def places(family: Family, name: str) -> Iterator[tuple[str, str | None]]:
    """Yield each key that one of our fields goes to, with its cast."""
    for place in family.places.get(name, "").split():
        key, _, how = place.partition(":")
        yield key, how or None


def _field_faults(table: Table, family: Family, request: JobRequest) -> Iterator[Fault]:
    """Validate our own fields, as far as they can be expressed."""
    values, inside = given(request), {name for name, _ in holes(table.submit.body)}
    usable = {name: v for name, v in values.items() if name in family.places or name in inside}
    if (ratio := usable.get("aspect_ratio")) is not None:
        choices = _choices(table, family, "aspect_ratio")
        if choices:
            yield from choice_faults("aspect_ratio", ratio, choices)
        elif family.ratio_pattern and not re.fullmatch(r"[0-9]+:[0-9]+", ratio):
            yield fault("aspect_ratio", "must be two whole numbers around a colon, such as 16:9")
    if "seed" in usable:
        yield from seed_faults(usable["seed"], *(family.seeds or (None, None)))
    if family.most_negative is not None and "negative_prompt" in usable:
        yield from text_faults("negative_prompt", usable["negative_prompt"], 0, family.most_negative)
    most = family.most_images if "num_images" in usable else None
    count = values.get("num_images", 1)
    if count < 1 or (most is not None and count > most):
        yield fault("num_images", f"must be at least 1{f' and at most {most}' if most else ''}")


def _choices(table: Table, family: Family, name: str) -> Collection[str]:
    """Return the values that one of our fields may have; none where all may be."""
    hows = [*places(family, name), *((key, how) for key, how in holes(table.submit.body) if key == name)]
    if any((how or "").startswith("map") for _, how in hows):
        return family.maps.get(name, table.maps.get(name, {})).keys()
    return next((family.choices[key] for key, _ in hows if key in family.choices), ())


def _taken(table: Table, family: Family | None, request: JobRequest) -> Mapping[str, str]:
    """Return the names that `params` may not have, each with what to do instead.

    What one of our fields only chooses from a table, such as a width, may be given there without that field.
    """
    submit, taken = table.submit, dict(table.advice)
    inside: Any = submit.body
    for step in submit.params.split(".") if submit.params else ():
        inside = inside.get(step, {})
    if not (family and family.block):
        taken |= {key: _advice(value) for key, value in inside.items()}
    if table.callback and not submit.params:
        ours = [table.callback.body.partition(".")[0], *table.callback.also]
        taken |= {key: SET_HERE for key in ours if key}
    if family is None:
        return taken
    if family.block:
        taken[family.block] = "give its keys directly in params"
    taken |= ADVICE
    asked = given(request)
    return taken | {
        key: ADVICE[name]
        for name in family.places
        for key, how in places(family, name)
        if name in asked or not (how or "").startswith("map")
    }


def _advice(template: Any) -> str:
    name = next((name for name, _ in holes(template)), "") if isinstance(template, str) else ""
    return ADVICE.get(name, f"give it as the field {name}" if name in {"model", "prompt"} else SET_HERE)


def _key_faults(family: Family, request: JobRequest) -> Iterator[Fault]:
    """Validate the keys of `params` that have documented choices; the gateway judges the rest."""
    ours = {key for name in family.places for key, _ in places(family, name)}
    for key, choices in family.choices.items():
        if key in request.params and key not in ours:
            yield from choice_faults(f"params.{key}", request.params[key], choices)
    for key in family.required:
        if key not in request.params:
            yield fault(f"params.{key}", f"{request.model} needs it")


def fault(field: str, message: str) -> Fault:
    """Return one validation error of a request."""
    return {"field": field, "message": message}


def text_faults(field: str, text: str, least: int, most: int | None) -> Iterator[Fault]:
    """Validate a text's length in characters."""
    if most is not None and not least <= len(text) <= most:
        yield fault(field, f"must have {least} to {most} characters, not {len(text)}")
    elif len(text) < least:
        yield fault(field, f"must have {least} characters or more")


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


def _params_faults(params: Mapping[str, Any], taken: Mapping[str, str]) -> Iterator[Fault]:
    """Validate `params`: plain JSON, without the names in `taken`, which maps each to the advice."""
    for name, advice in taken.items():
        if name in params:
            yield fault(f"params.{name}", advice)
    try:
        json.dumps(params, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        yield fault("params", "must be plain JSON values")
