"""Parse what gateways send: JSON within limits, first-hit look-ups, status words, images, seeds.

The input may be hostile. Nothing here raises anything but Unreadable.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, NoReturn

from receiver.gateways.base import State
from receiver.redaction import Redactor
from storage.models import ImageRef

MAX_DEPTH = 64
MAX_PARTS = 100_000
"""Most commas and brackets of a text that is parsed. Four megabytes of `[],[],` take a second, and a
hundred megabytes; what gateways send has hundreds of parts."""
MAX_DIGITS = 100
"""Longest whole number that is read; the largest seeds in use have 20 digits."""
MAX_IMAGES = 256
MAX_URL_CHARS = 8192
MAX_SEED_CHARS = 500
MAX_PROSE_CHARS = 500
MAX_RETRY_AFTER_S = 3600.0
DEFAULT_RETRY_AFTER_S = 10.0

URL_KEYS = ("url", "image_url", "imageURL", "imageUrl")
_RUNNING, _SUCCEEDED, _FAILED = State.RUNNING, State.SUCCEEDED, State.FAILED
STATES: Mapping[str, State] = {
    # Apiframe: https://docs-v2.apiframe.ai/docs/jobs/get
    "QUEUED": _RUNNING,
    "PROCESSING": _RUNNING,
    "COMPLETED": _SUCCEEDED,
    "FAILED": _FAILED,
    "CANCELLED": _FAILED,
    # Apiframe, version 1: https://github.com/apiframe-ai/apiframe-nodejs-sdk/blob/main/MIGRATION.md
    "PENDING": _RUNNING,
    "FINISHED": _SUCCEEDED,
    # API in One: https://apiin.one/docs. Which others it passes on is not documented, so all are read.
    "IN_PROGRESS": _RUNNING,
    # Kie.ai: https://docs.kie.ai
    "WAITING": _RUNNING,
    "QUEUING": _RUNNING,
    "GENERATING": _RUNNING,
    "SUCCESS": _SUCCEEDED,
    "FAIL": _FAILED,
    # Kling, resold by many: https://apidoc.cometapi.com/callback-url-doc-866305
    "SUBMITTED": _RUNNING,
    "SUCCEED": _SUCCEEDED,
    # fal.ai: https://fal.ai/docs/documentation/model-apis/inference/webhooks
    "IN_QUEUE": _RUNNING,
    "OK": _SUCCEEDED,
    "ERROR": _FAILED,
    # Replicate: https://replicate.com/docs/topics/webhooks
    "STARTING": _RUNNING,
    "SUCCEEDED": _SUCCEEDED,
    "CANCELED": _FAILED,
    # Black Forest Labs: https://docs.bfl.ai
    "READY": _SUCCEEDED,
    "CONTENT_MODERATED": _FAILED,
    # Freepik: https://docs.freepik.com/webhooks, WaveSpeedAI: https://wavespeed.ai/docs/verify-webhooks
    "CREATED": _RUNNING,
    # Leonardo.ai: https://docs.leonardo.ai/docs/best-practices
    "COMPLETE": _SUCCEEDED,
    # Luma: https://docs.lumalabs.ai/changelog/callbacks-and-credits-balance
    "DREAMING": _RUNNING,
    # Novita: https://novita.ai/docs/api-reference/model-apis-webhook
    "TASK_STATUS_PROCESSING": _RUNNING,
    "TASK_STATUS_SUCCEED": _SUCCEEDED,
    # Seen at resellers without a page of their own.
    "RUNNING": _RUNNING,
    "DONE": _SUCCEEDED,
    "REJECTED": _FAILED,
    "EXPIRED": _FAILED,
}
"""Words for a job's state. Numbers are missing on purpose: 1 is success at one gateway, 3 at another."""

_IMAGE_LINK = re.compile(r"https?://[^\s\"]+\.(?:png|jpe?g|webp|avif|gif|svg)(?:[?#]\S*)?", re.IGNORECASE)
_ASKED = frozenset({"input", "inputs", "param", "params", "request", "config", "options", "metadata"})
"""Fields that repeat what was asked for."""
_UNPRINTABLE = re.compile(r"[\x00\ud800-\udfff]")


class Unreadable(ValueError):
    """The input cannot be parsed; the message says why, and quotes nothing of it."""


def decode(body: bytes) -> dict[str, Any]:
    """Parse a JSON object strictly: UTF-8, no NaN, limited numbers and depth.

    NUL and lone surrogates become U+FFFD: databases refuse them, and senders that cut a text in the middle
    of an emoji do send them.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8") from None
    value = _parse(text)
    if not isinstance(value, dict):
        raise Unreadable("it is not a JSON object")
    return value


def dig(value: object, path: str, *, strict: bool = False) -> Any:
    """Return the value at a dotted path, or None. Objects inside of JSON text are parsed on the way.

    A text that cannot be parsed counts as empty; if `strict`, it raises Unreadable.
    """
    for step in path.split("."):
        if isinstance(value, str):
            value = _object_in(value, strict=strict)
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def first(value: object, paths: Iterable[str]) -> Any:
    """Return the value at the first of several paths that is not null and not an empty text, or None."""
    return next((found for path in paths if (found := dig(value, path)) not in (None, "")), None)


def name(value: object, *, limit: int = 255) -> str | None:
    """Parse an id or a model's name: a short text, or a whole number as text; None if there is none.

    Raises Unreadable for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > limit:
        raise Unreadable("an id or name in it is not a short text")
    return value.strip() or None


def label(value: object) -> str | None:
    """Return an optional name; None if it is not a short text."""
    return value.strip() or None if isinstance(value, str) and len(value) <= 255 else None


def state(word: object) -> State | None:
    """Return the state of a status word, in any case; None for an unknown word."""
    if not isinstance(word, str) or len(word) > 64:
        return None
    return STATES.get(re.sub(r"[\s-]+", "_", word.strip()).upper())


def unknown_status(*words: object) -> str | None:
    """Return that a status is not understood, for `Completion.unread`; None if one of its words is known."""
    given = [word for word in words if word is not None]
    if not given or any(map(state, given)):
        return None
    return f"its status {prose(str(given[0])[:MAX_PROSE_CHARS], limit=40)!r} is not known here"


def unread_image(value: object) -> str | None:
    """Return that a link which may be an image stands where none is read, for `Completion.unread`.

    Only to say so: nothing counts as an image because it looks like one.
    """
    path = _path_to_link(value)
    return (
        path and f"what may be its image stands in a place that is not known here: {prose(path, limit=100)}"
    )


def seed(value: object) -> str | None:
    """Parse a seed as exact text, or None. A seed is never rounded: a float from 2^53 on is unknown."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and len(value) <= MAX_SEED_CHARS:
        return value.strip() or None
    return None


def amount(value: object) -> float | None:
    """Parse a number of credits, or None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    return None


def prose(value: object, secrets: Sequence[str] = (), *, limit: int = MAX_PROSE_CHARS) -> str | None:
    """Return a gateway's message as one short line, `redacted`; None if it is no text or empty."""
    if not isinstance(value, str):
        return None
    if len(value) > limit * 4:
        # A text may be megabytes long. The last word is dropped with the rest: it may be half a secret.
        value = f"{value[: limit * 4].rpartition(' ')[0]} …"
    plain = redacted(value, secrets)
    line = " ".join("".join(c if c.isprintable() else " " for c in plain).split())
    return (line if len(line) <= limit else f"{line[: limit - 1]}…") or None


def images(value: object) -> tuple[ImageRef, ...]:
    """Parse image links: a URL, an object with one, or a list of either; null is no image.

    Every link is kept as it is, even one that cannot be downloaded: without it, a job would seem complete.
    Raises Unreadable for other shapes.
    """
    entries = value if isinstance(value, list) else [value]
    if len(entries) > MAX_IMAGES:
        raise Unreadable(f"it has more than {MAX_IMAGES} images")
    if all(isinstance(entry, dict) and type(entry.get("index")) is int for entry in entries):
        entries = sorted(entries, key=lambda entry: int(entry["index"]))
    return tuple(ref for ref in map(_image, entries) if ref is not None)


def retry_after(headers: Mapping[str, str]) -> float:
    """Parse `Retry-After`: seconds, from 1 to 3600; 10 if it is missing or malformed.

    A date is compared with the response's own `Date`, so that neither clock needs to be right.
    https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
    """
    given = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", given):
        wait = float(given)
    else:
        until, now = _http_date(given), _http_date(headers.get("date", ""))
        wait = (until - now).total_seconds() if until and now else DEFAULT_RETRY_AFTER_S
    return min(max(wait, 1.0), MAX_RETRY_AFTER_S)


def redacted(value: Any, secrets: Sequence[str]) -> Any:
    """Redact secrets, callback tokens and the queries of URLs, which may be keys, in a decoded value."""
    return _redactor(tuple(secrets)).value(value)


@lru_cache(maxsize=16)
def _redactor(secrets: tuple[str, ...]) -> Redactor:
    return Redactor(secrets)


def _parse(text: str) -> Any:
    if text.count(",") + text.count("[") + text.count("{") > MAX_PARTS:
        raise Unreadable(f"it has more than {MAX_PARTS} parts")
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_int=_whole, parse_float=_finite)
    except Unreadable:
        raise
    except (ValueError, RecursionError):
        raise Unreadable("it is not JSON") from None
    # Every level costs a bracket, so few brackets need no walk.
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    return _printable(value) if "\\u" in text else value


def _object_in(text: str, *, strict: bool) -> Any:
    if not text.lstrip().startswith("{"):
        return None
    try:
        return _parse(text)
    except Unreadable:
        if strict:
            raise
        return None


def _path_to_link(value: object, path: str = "") -> str | None:
    if isinstance(value, str):
        return path if _IMAGE_LINK.match(value) else None
    if isinstance(value, list):
        inner = ((f"[{number}]", each) for number, each in enumerate(value[:MAX_IMAGES]))
    elif isinstance(value, dict):
        inner = ((f".{key}" if path else key, each) for key, each in value.items() if key not in _ASKED)
    else:
        return None
    return next((found for step, each in inner if (found := _path_to_link(each, path + step))), None)


def _no_constant(constant: str) -> NoReturn:
    raise Unreadable(f"it has a number that JSON does not have: {constant}")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise Unreadable(f"it has a number of more than {MAX_DIGITS} digits")
    return int(digits)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Unreadable("it has a number that is too large")
    return number


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return
    raise Unreadable(f"it is nested more than {MAX_DEPTH} levels deep")


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_printable(key): _printable(inner) for key, inner in value.items()}
    return [_printable(inner) for inner in value] if isinstance(value, list) else value


def _image(entry: object) -> ImageRef | None:
    beside = None
    if isinstance(entry, dict):
        if not any(key in entry for key in URL_KEYS):
            raise Unreadable("an image in it has no link")
        beside = seed(entry.get("seed"))
        entry = first(entry, URL_KEYS)
    if entry is None:
        return None
    if not isinstance(entry, str) or len(entry) > MAX_URL_CHARS:
        raise Unreadable("an image in it is not a link")
    return ImageRef(entry.strip(), beside) if entry.strip() else None


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return moment if moment.tzinfo else None
