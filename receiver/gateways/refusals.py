"""The errors that gateways' answers stand for, in sentences that say what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from receiver.errors import (
    GarbledAnswer,
    GatewayError,
    GatewayRefused,
    GatewayUnauthorized,
    GatewayUnavailable,
    OutOfCredits,
    RateLimited,
    UnknownGatewayJob,
)
from receiver.gateways import parsing

MAX_DETAILS_BYTES = 8192

WORDS = ("error.message", "error", "message", "msg", "detail")
"""Where gateways put their own words for what is wrong."""


@dataclass(frozen=True, slots=True)
class GatewayInfo:
    """Who answered: what users call it, where its settings are, and what must never be repeated."""

    title: str
    settings: str
    """What its settings begin with: `DARKROOM_GATEWAYS__APIFRAME`."""
    secrets: tuple[str, ...] = field(repr=False)


def decoded(response: httpx.Response) -> dict[str, Any]:
    """Decode an answer's body, whatever it is; an empty object if it cannot be read."""
    try:
        return parsing.decode(response.content)
    except parsing.Unreadable:
        return {}


def request_id(response: httpx.Response) -> str | None:
    """Answer the gateway's own id for this exchange, which its support will ask for."""
    return parsing.label(response.headers.get("x-request-id"))


def garbled(speaker: GatewayInfo, response: httpx.Response, reason: object) -> GarbledAnswer:
    """Say that a success cannot be read."""
    message = f"{speaker.title} answered {response.status_code}, but the answer cannot be read: {reason}."
    return GarbledAnswer(message, request_id=request_id(response))


def refusal(
    speaker: GatewayInfo, response: httpx.Response, *, polling: bool = False, code: int | None = None
) -> GatewayError:
    """Answer the error that an answer stands for.

    `polling` tells an answer to `poll` from one to `submit`. `code` is given where the answer is a failure
    inside of a success: the gateway's own word that it did not take a job, so that a submission with a code
    of 500 is refused, where one with a status of 500 may have been taken.
    """
    status = response.status_code if code is None else code
    answer = decoded(response)
    known = request_id(response)
    words = _words(speaker, answer, response)
    said = f"({status}: {words})" if words else f"({status})"
    title = speaker.title
    if status in (401, 403):
        message = f"{title} does not accept the API key {said}. Check {speaker.settings}__API_KEY."
        return GatewayUnauthorized(message, details=_details(speaker, answer), request_id=known)
    if status == 402:
        message = f"The account at {title} has too few credits {said}. Add credits to go on."
        return OutOfCredits(message, details=_credits(answer), request_id=known)
    if status == 429:
        wait = parsing.retry_after(response.headers)
        message = f"{title} asks to wait {wait:g} s {said}."
        return RateLimited(message, retry_after_s=wait, request_id=known)
    if polling and status in (404, 410):
        return UnknownGatewayJob(f"{title} does not know this job {said}.", request_id=known)
    if 300 <= status < 400:
        message = f"{title} redirects elsewhere {said}. Check {speaker.settings}__BASE_URL."
        return GatewayUnavailable(message, request_id=known)
    if _passing(status) or (status >= 500 and (polling or code is None)):
        return GatewayUnavailable(f"{title} cannot answer now {said}.", request_id=known)
    if 200 <= status < 300:
        return garbled(speaker, response, "it is not a success that this gateway documents")
    if status >= 500:
        message = f"{title} failed to take the job {said}. It took nothing; try it again later."
    else:
        message = f"{title} refused the request {said}. Change it before sending it again."
    return GatewayRefused(message, details=_details(speaker, answer), request_id=known)


def _passing(status: int) -> bool:
    """Whether a status says that nothing was taken, and that a later time is better. 455: maintenance."""
    return status in (408, 425, 455, 503)


def _words(speaker: GatewayInfo, answer: Mapping[str, Any], response: httpx.Response) -> str | None:
    text = parsing.first(answer, WORDS)
    details = answer.get("details")
    if isinstance(text, str) and isinstance(details, dict):
        text = f"{text}: {'; '.join(_flat(path, said) for path, said in list(details.items())[:20])}"
    if text is None and not answer:
        # A page of HTML says nothing to a person here; a line of plain text may.
        body = response.content[: parsing.MAX_PROSE_CHARS * 4].decode("utf-8", "replace")
        text = None if body.lstrip()[:1] in ("<", "{", "[") else body
    words = parsing.prose(text, speaker.secrets)
    return words.rstrip(". ") or None if words else None


def _flat(path: str, said: object) -> str:
    """One line for `{"json.path": ["what is wrong there"]}`."""
    texts = [text for text in said if isinstance(text, str)] if isinstance(said, list) else [str(said)]
    return f"{path}: {', '.join(texts)}"


def _details(speaker: GatewayInfo, answer: Mapping[str, Any]) -> Mapping[str, Any] | None:
    details = answer.get("details", answer)
    if not details or not isinstance(details, dict) or len(json.dumps(details)) > MAX_DETAILS_BYTES:
        return None
    plain: Mapping[str, Any] = parsing.redacted(details, speaker.secrets)
    return plain


def _credits(answer: Mapping[str, Any]) -> Mapping[str, Any] | None:
    names = ("creditsRequired", "creditsAvailable")
    return {name: n for name in names if (n := parsing.amount(answer.get(name))) is not None} or None
