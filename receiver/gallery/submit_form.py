"""Convert between the submit form and a submit body or job."""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from receiver.errors import InvalidRequest
from receiver.schemas.requests import SubmitBody, parse_body
from storage.models import Job

LABELS = {
    "prompt": "Prompt",
    "gateway": "Gateway",
    "model": "Model",
    "aspect_ratio": "Aspect ratio",
    "num_images": "Images",
    "seed": "Seed",
    "negative_prompt": "Negative prompt",
    "tags": "Tags",
    "params": "Parameters",
    "notify_url": "Notify",
    "unsupported": "What is unsupported",
}
"""What the form calls each field of the submit body, in its order."""
FIELDS = tuple(LABELS)

FORM = "form"
"""Key of faults that belong to no field."""

_KEY = re.compile(r"gallery-[0-9a-f]{32}")

Typed = dict[str, str]
"""The text of each field."""


def new_key() -> str:
    """Return a new idempotency key: however often a form is sent, it creates one job."""
    return f"gallery-{secrets.token_hex(16)}"


def key_of(text: str | None) -> str:
    """Return the idempotency key of a form, or a new one if it is not ours."""
    return text if text is not None and _KEY.fullmatch(text) else new_key()


def typed(form: Mapping[str, str]) -> Typed:
    """Return the values typed, with CRLF line ends as LF."""
    return {name: form.get(name, "").replace("\r\n", "\n") for name in FIELDS}


def kept(form: Mapping[str, str], values: Typed) -> Typed:
    """Return the values to show again, with fields that the page's script had disabled."""
    return {name: value or form.get(f"kept_{name}", "") for name, value in values.items()}


def written(job: Job, seed_reported: str | None) -> Typed:
    """Return the form values that make a job again; a seed not requested is the one reported."""
    request = job.request
    return {
        "gateway": job.gateway,
        "model": request.model,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt or "",
        "aspect_ratio": request.aspect_ratio or "",
        "num_images": "" if request.num_images is None else str(request.num_images),
        "seed": request.seed or seed_reported or "",
        "params": json.dumps(request.params, ensure_ascii=False, indent=2) if request.params else "",
        "tags": "".join(f"{name}={value}\n" for name, value in request.tags.items()),
        # It may have a secret of the caller that submitted that job.
        "notify_url": "",
        "unsupported": "ignore" if request.ignored else "",
    }


def read(values: Typed) -> SubmitBody:
    """Parse the form; raise InvalidRequest that names every wrong field."""
    faults: list[dict[str, str]] = []
    names = {name: values[name].strip() for name in ("gateway", "model")}
    body: dict[str, Any] = {**names, "prompt": values["prompt"]}
    for name in ("negative_prompt", "aspect_ratio", "seed", "notify_url"):
        if text := values[name].strip():
            body[name] = text
    for name, reader in (("num_images", _number), ("params", _params), ("tags", _tags)):
        if text := values[name].strip():
            try:
                body[name] = reader(text)
            except ValueError as error:
                faults.append({"field": name, "message": str(error)})
    if values["unsupported"] == "ignore":
        body["unsupported"] = "ignore"
    try:
        read_body = parse_body(SubmitBody, json.dumps(body).encode())
    except InvalidRequest as error:
        raise InvalidRequest([*faults, *error.faults]) from None
    if faults:
        raise InvalidRequest(faults)
    return read_body


def by_field(faults: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the faults by form field."""
    found: dict[str, str] = {}
    for fault in faults:
        head, _, rest = fault["field"].partition(".")
        name = head if head in FIELDS else FORM
        text = fault["message"] if name == fault["field"] else f"{rest or head}: {fault['message']}"
        found[name] = f"{found[name]}; {text}" if name in found else text
    return found


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text, re.ASCII):
        raise ValueError("must be a whole number")
    return int(text)


def _params(text: str) -> dict[str, Any]:
    try:
        read_value = json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON, from line {error.lineno}, column {error.colno} on") from None
    except RecursionError:
        raise ValueError("is nested too deep") from None
    if isinstance(read_value, dict):
        return read_value
    raise ValueError('must be a JSON object, such as {"image_size": "2K"}')


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"is no JSON: {word} is no number")


def _tags(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for place, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise ValueError(f"line {place} must be name=value")
        if name in found:
            raise ValueError(f"line {place} has the name {name} a second time")
        found[name] = value
    return found
