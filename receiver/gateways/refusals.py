"""Map gateways' error responses to GatewayErrors, in sentences that say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from receiver import errors
from receiver.gateways import parsing

if TYPE_CHECKING:
    import httpx

MAX_DETAILS_BYTES = 8192

NOT_NOW = frozenset({408, 425, 455, 503})
"""Statuses that mean that nothing was accepted, and to retry later. 455: maintenance."""
KINDS: Mapping[str, int] = {
    "unauthorized": 401,
    "credits": 402,
    "unknown-job": 404,
    "refused": 422,
    "rate-limited": 429,
    "unavailable": 503,
}
"""The kinds of `table.Errors`: each is what the usual status of that kind is."""


@dataclass(frozen=True, slots=True)
class GatewayInfo:
    """A gateway's title, the prefix of its settings, and its secrets, which must not be repeated."""

    title: str
    settings: str
    """`DARKROOM_GATEWAYS__APIFRAME`"""
    secrets: tuple[str, ...] = field(repr=False)
    words: Callable[[Mapping[str, Any]], str | None] = field(repr=False)
    """Returns its own words in a refusal."""
    kinds: Mapping[int, str] = field(default_factory=dict)
    """As in `table.Errors`."""


def decoded(response: httpx.Response) -> dict[str, Any]:
    """Return a response's body as a JSON object; an empty one if it cannot be parsed."""
    try:
        return parsing.decode(response.content)
    except parsing.Unreadable:
        return {}


def request_id(response: httpx.Response) -> str | None:
    """Return the gateway's own id of this exchange, which its support will ask for."""
    return parsing.label(response.headers.get("x-request-id"))


def garbled(info: GatewayInfo, response: httpx.Response, reason: object) -> errors.GarbledAnswer:
    """Return the error for a success that cannot be parsed."""
    message = f"{info.title} returned HTTP {response.status_code}, but it cannot be read: {reason}."
    return errors.GarbledAnswer(message, request_id=request_id(response))


def refusal(
    info: GatewayInfo, response: httpx.Response, *, polling: bool = False, code: int | None = None
) -> errors.GatewayError:
    """Return the error that a response stands for.

    `polling`: it is the response to a poll and not to a submission. `code` is given for a failure inside of
    a success: the gateway's own word that it did not accept the job, so that a submission with a code of 500
    is refused, where one with a status of 500 may have been accepted.
    """
    given = response.status_code if code is None else code
    status = KINDS.get(info.kinds.get(given, ""), given)
    data = decoded(response)
    known = request_id(response)
    words = _words(info, data, response)
    said = f"({given}: {words})" if words else f"({given})"
    title = info.title
    if status in (401, 403):
        message = f"{title} does not accept the API key {said}. Check {info.settings}__API_KEY."
        return errors.GatewayUnauthorized(message, details=_details(info, data), request_id=known)
    if status == 402:
        message = f"The account at {title} has too few credits {said}. Add credits to continue."
        return errors.OutOfCredits(message, details=_credits(data), request_id=known)
    if status == 429:
        wait = parsing.retry_after(response.headers)
        message = f"{title} asks to wait {wait:g} s {said}."
        return errors.RateLimited(message, retry_after_s=wait, request_id=known)
    unknown = polling and status in (404, 410)
    if unknown and not _is_page(response):
        return errors.UnknownGatewayJob(f"{title} does not know this job {said}.", request_id=known)
    if 300 <= status < 400:
        message = f"{title} redirects elsewhere {said}. Check {info.settings}__BASE_URL."
        return errors.GatewayUnavailable(message, request_id=known)
    if status in NOT_NOW or (status >= 500 and (polling or code is None)) or unknown:
        return errors.GatewayUnavailable(f"{title} is not available now {said}.", request_id=known)
    if 200 <= status < 300:
        return garbled(info, response, "it is not a success that this gateway documents")
    if status >= 500:
        message = f"{title} failed to accept the job {said}. Try it again later."
    else:
        message = f"{title} refused the request {said}. Change it before sending it again."
    return errors.GatewayRefused(message, details=_details(info, data), request_id=known)


@contextmanager
def parsed(info: GatewayInfo, response: httpx.Response, *, polling: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the decoded body of a success. Raises the GatewayError of a refusal, and of an Unreadable."""
    if not response.is_success:
        raise refusal(info, response, polling=polling)
    try:
        yield parsing.decode(response.content)
    except parsing.Unreadable as error:
        raise garbled(info, response, error) from error


def said(value: object) -> str | None:
    """Return a gateway's words: a text, or those of each entry of a list with the place it is about.

    So FastAPI refuses a body (`loc`, `msg`): https://fastapi.tiangolo.com/tutorial/handling-errors; and so
    does Runware (`parameter`, `message`).
    """
    if not isinstance(value, list):
        return value if isinstance(value, str) and value.strip() else None
    faults = [_fault(one) for one in value[:20] if isinstance(one, dict)]
    return "; ".join(filter(None, faults)) or None


def _fault(entry: Mapping[str, Any]) -> str:
    text, place = entry.get("msg", entry.get("message")), entry.get("loc", entry.get("parameter"))
    return ": ".join(filter(None, [_place(place), text])) if isinstance(text, str) else ""


def _place(loc: object) -> str:
    steps = loc[:8] if isinstance(loc, list) else [loc]
    return ".".join(str(step) for step in steps if isinstance(step, str | int))


def _is_page(response: httpx.Response) -> bool:
    """Return whether a web page came, which says nothing of a job: something stands before the gateway."""
    return response.content.lstrip()[:1] == b"<"


def _words(info: GatewayInfo, data: Mapping[str, Any], response: httpx.Response) -> str | None:
    text = info.words(data)
    details = data.get("details")
    if text and isinstance(details, dict):
        text = f"{text}: {'; '.join(_flat(path, said) for path, said in list(details.items())[:20])}"
    if text is None and not data:
        # A page of HTML helps no reader; a line of plain text may.
        body = response.content[: parsing.MAX_PROSE_CHARS * 4].decode("utf-8", "replace")
        text = None if _is_page(response) or body.lstrip()[:1] in ("{", "[") else body
    words = parsing.prose(text, info.secrets)
    return words.rstrip(". ") or None if words else None


def _flat(path: str, said: object) -> str:
    """Return one line for `{"json.path": ["what is wrong there"]}`."""
    texts = [text for text in said if isinstance(text, str)] if isinstance(said, list) else [str(said)]
    return f"{path}: {', '.join(texts)}"


def _details(info: GatewayInfo, data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    details = data.get("details", data)
    if not details or not isinstance(details, dict) or len(json.dumps(details)) > MAX_DETAILS_BYTES:
        return None
    plain: Mapping[str, Any] = parsing.redacted(details, info.secrets)
    return plain


def _credits(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    names = ("creditsRequired", "creditsAvailable")
    return {name: n for name in names if (n := parsing.amount(data.get(name))) is not None} or None
