"""Parse what gateways send: JSON within limits, first-hit look-ups, status words, images, seeds.

The input may be hostile. Nothing here raises anything but Unreadable.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

import orjson

from receiver.gateways.base import Completion, State
from receiver.redaction import Redactor
from storage.media import inline
from storage.models import ImageRef, Withheld

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
MAX_REASON_CHARS = 200
MAX_RETRY_AFTER_S = 3600.0
DEFAULT_RETRY_AFTER_S = 10.0

REFUSALS = (
    *("error.message", "error", "raiFilteredReason", "rai_filtered_reason", "blockReason", "block_reason"),
    *("failure_reason", "failMsg"),
)
"""Where an entry of a list of images says why it has none; also in an object without any link."""
_WHY = (*REFUSALS, "reason", "finishReason", "finish_reason", "message", "status")
_FLAGS = ("nsfw", "blocked", "filtered", "moderated")
_BESIDE = ("errors", "reasons", "warnings", "error", "reason", "warning")
"""Where the object around a list says so: a text for each place, or one text."""
URL_KEYS = ("url", "image_url", "imageURL", "imageUrl")
INLINE_KEYS = ("b64_json", "b64", "base64", "image_base64", "bytesBase64Encoded")
"""Where an image itself stands in base64: https://platform.openai.com/docs/api-reference/images."""
IMAGE_KEYS = (*URL_KEYS, *INLINE_KEYS)
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
_LINK = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]{0,20}:)?//(?:(?!,https?:)\S)+")
# As nearly all are, which takes a tenth of the time to see: printable ASCII without a comma.
_PLAIN_LINK = re.compile(r"https?://[!-+\--~]{1,8000}")
DATA_URI = "data:"
"""How an image's URL begins that holds the image itself."""
_ASKED = frozenset({"input", "inputs", "param", "params", "request", "config", "options", "metadata"})
"""Fields that repeat what was asked for."""
_DIGITS, _LONG = bytes.maketrans(b"123456789", b"0" * 9), b"0" * 19
"""With the first each digit is a zero; a number with the second in it may be one that orjson rounds."""
_UNPRINTABLE = re.compile(r"[\x00\ud800-\udfff]")


class Listed(NamedTuple):
    """A gateway's list of images: the images, and the places without one."""

    images: tuple[ImageRef, ...] = ()
    withheld: tuple[Withheld, ...] = ()


class Unreadable(ValueError):
    """The input cannot be parsed; the message says why, and quotes nothing of it."""


def decode(body: bytes) -> dict[str, Any]:
    """Parse a JSON object strictly: UTF-8, no NaN, limited numbers and depth.

    NUL and lone surrogates become U+FFFD: databases refuse them, and senders that cut a text in the middle
    of an emoji do send them.
    """
    value = _decode_plain(body)
    if value is None:
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Unreadable("it is not UTF-8") from None
        value = _parse(text)
    if not isinstance(value, dict):
        raise Unreadable("it is not a JSON object")
    return value


def dig(value: object, path: str) -> Any:
    """Return the value at a dotted path, or None. Objects inside of JSON text are parsed on the way."""
    for step in path.split("."):
        if isinstance(value, str):
            value = inside(value)
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def inside(value: object) -> Any:
    """Return the object or list that a text holds as JSON; what is one already stays. None for all else."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return _parse(value)
        except Unreadable:
            return None
    return value if isinstance(value, dict | list) else None


def first(value: object, paths: Iterable[str]) -> Any:
    """Return the value at the first of several paths that is not null and not an empty text, or None."""
    for path in paths:
        found = value.get(path) if isinstance(value, dict) and "." not in path else dig(value, path)
        if found is not None and found != "":
            return found
    return None


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
    return _state(word)


@lru_cache(maxsize=256)
def _state(word: str) -> State | None:
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


def echoed_seed(value: object) -> str | None:
    """Parse a seed that is our own input sent back; -1 asks for any, and is none."""
    found = seed(value)
    return None if found == "-1" else found


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


def images(value: object, around: object = None) -> Listed:
    """Parse images: a URL or data URI, an object with one or with base64, a list, or JSON of these in a text.

    An image's index is its place in the list, so places that are null, empty or blocked count, each with the
    reason that the entry or the object `around` the list gives. A link that came before is no other image.
    Every link is kept as it is, even one that cannot be downloaded: without it, a job would seem complete. At
    least one must be a link. Raises Unreadable for other shapes.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        value = _parse(value)
    if value in (None, ""):
        return Listed()
    if isinstance(value, list) and _are_plain_links(value):
        return Listed(tuple(ImageRef(link, None, index) for index, link in enumerate(value)))
    places = [_image(entry, index) for index, entry in _places(value if isinstance(value, list) else [value])]
    found: dict[str, ImageRef] = {}
    withheld = []
    for place in places:
        if isinstance(place, ImageRef) and place.url not in found:
            found[place.url] = place
        elif isinstance(place, ImageRef):
            repeated = f"its link is that of image {found[place.url].index}"
            withheld.append(Withheld(place.index, repeated))
        else:
            withheld.append(Withheld(place.index, place.reason or _reason_beside(around, place.index)))
    if found and not any(_is_link(url) or is_inline(url) for url in found):
        raise Unreadable("what stands for an image in it is not a link")
    return Listed(tuple(found.values()), tuple(withheld))


def first_images(lists: Iterable[Listed]) -> Listed:
    """Return the first list that has an image; without any, the first that has places for them."""
    empty = Listed()
    for one in lists:
        if one.images:
            return one
        empty = empty if empty.withheld else one
    return empty


def at_once(read: Callable[[], Completion]) -> Completion | None:
    """Return the result that the response to a submission has already; None if it has no images.

    Then it is only known to be accepted, whatever else is in it.
    """
    try:
        completion = read()
    except Unreadable:
        return None
    return completion if completion.state is State.SUCCEEDED and completion.images else None


def is_inline(url: str) -> bool:
    """Return whether an image's URL holds the image itself."""
    return url.startswith(DATA_URI)


def without_images(value: Any) -> Any:
    """Return a decoded value without the images that stand in it: they are archived, and not kept twice."""
    if isinstance(value, str):
        return inline.without_images(value.encode()).decode() if len(value) >= inline.LEAST_CHARS else value
    if isinstance(value, Mapping):
        return {key: without_images(inner) for key, inner in value.items()}
    return [without_images(inner) for inner in value] if isinstance(value, list) else value


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


def _decode_plain(body: bytes) -> Any:
    """Parse JSON in a sixth of the time; None for what needs a closer look, or is no JSON."""
    if b"\\u" in body or _LONG in body.translate(_DIGITS):
        return None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH or body.count(b",") > MAX_PARTS - MAX_DEPTH:
        return None
    try:
        return orjson.loads(body)
    except ValueError:
        return None


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


def _places(entries: Sequence[Any]) -> Iterable[tuple[int, Any]]:
    """Return the entries of a list with their places: those that they name if sound, or else their order."""
    if len(entries) > MAX_IMAGES:
        raise Unreadable(f"it has more than {MAX_IMAGES} images")
    if not entries or not all(isinstance(one, dict) and type(one.get("index")) is int for one in entries):
        return enumerate(entries)
    named = {entry["index"]: entry for entry in entries}
    # Some count from 1; whether those leave out the first place or the last cannot be known.
    if len(named) == len(entries) and min(named) == 0 and max(named) < MAX_IMAGES:
        return ((index, named.get(index)) for index in range(max(named) + 1))
    return enumerate(sorted(entries, key=lambda entry: int(entry["index"])))


def _image(entry: object, index: int) -> ImageRef | Withheld:
    link, beside, why = entry, None, None
    if isinstance(entry, dict):
        beside, why = seed(entry.get("seed")), _why(entry)
        link = first(entry, URL_KEYS) or _data_uri(first(entry, INLINE_KEYS))
        if not why and not any(key in entry for key in IMAGE_KEYS):
            raise Unreadable("an image in it has no link")
    if link is None:
        return Withheld(index, why)
    if isinstance(link, str) and inline.is_base64_image(link[: inline.HEAD_CHARS].encode("ascii", "replace")):
        link = _data_uri(link)
    if not isinstance(link, str) or (len(link) > MAX_URL_CHARS and not is_inline(link)):
        raise Unreadable("an image in it is not a link")
    return ImageRef(link.strip(), beside, index) if link.strip() else Withheld(index, why)


def _why(entry: Mapping[str, Any]) -> str | None:
    """Return why an entry has no image, in the gateway's words."""
    places = _WHY if any(key in entry for key in URL_KEYS) else REFUSALS
    said = first(entry, places) or next((flag for flag in _FLAGS if entry.get(flag) is True), None)
    return prose(said, limit=MAX_REASON_CHARS)


def _reason_beside(around: object, index: int) -> str | None:
    said = first(around, _BESIDE)
    if isinstance(said, list):
        said = said[index] if index < len(said) else None
    elif isinstance(said, dict):
        said = said.get(str(index), said.get("message"))
    return prose(said, limit=MAX_REASON_CHARS)


def _data_uri(text: object) -> str | None:
    """Return base64 as a data URI; what is a link or one already stays."""
    if not isinstance(text, str) or not text.strip():
        return None
    text = text.strip()
    return text if is_inline(text) or _is_link(text) else f"data:;base64,{text}"


def _is_link(text: str) -> bool:
    return (_PLAIN_LINK.fullmatch(text) or _LINK.fullmatch(text)) is not None


def _are_plain_links(entries: Sequence[Any]) -> bool:
    """Return whether a list has different plain links and nothing else."""
    if not 0 < len(entries) <= MAX_IMAGES:
        return False
    plain = all(isinstance(entry, str) and _PLAIN_LINK.fullmatch(entry) for entry in entries)
    return plain and len({*entries}) == len(entries)


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return moment if moment.tzinfo else None
