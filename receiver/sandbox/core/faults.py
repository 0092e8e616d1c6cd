"""Parse the faults that a request to the sandbox asks for.

A fault stands in the body under `sandbox`, beside the other parameters or in an object among them, as a name
(`"late"`) or as an object (`{"fault": "late", "delay_s": 2}`), or in the header `X-Sandbox-Fault: late;
delay_s=2`. Several are joined by `+`: `no_callback+expired_link`.
A fault of images strikes every download, or with `times` the first so many of each image.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

HEADER = "x-sandbox-fault"

KINDS: dict[str, str] = {
    "no_callback": "no callback is sent",
    "late": "the callback comes `delay_s` after completion; polls see the job done meanwhile",
    "duplicate": "the last callback is sent `times` times; with `at_once` all in the same instant",
    "out_of_order": "a progress callback follows the last one",
    "early": "the last callback is delivered before the response to the submit request",
    "malformed_callback": "callbacks are cut in the middle, so they are not JSON",
    "big_callback": "callbacks are padded to about `bytes` bytes, 5 million by default",
    "evil_url": "callbacks name `url` as the image; polls tell the truth",
    "odd_link": "callbacks and polls name `url` as the image",
    "odd_place": "callbacks and polls have the links in a place of their own",
    "odd_status": "callbacks and polls have `message` as the status",
    "odd_poll": "polls get a web page with 200, `times` times",
    "inline_image": "callbacks and polls have the images themselves, as data URIs",
    "inline_answer": "the response to the submit request has the images themselves, and no callback is sent",
    "no_images": "callbacks and polls name no image",
    "failed": "the job fails with `message`",
    "refused": "the submit request is refused with 400",
    "rate_limited": "the submit request gets 429 with `retry_after_s`, `times` times",
    "unavailable": "the submit request gets 503, `times` times",
    "server_error": "the submit request gets 500, `times` times, and the job is not accepted",
    "lost_answer": "the job is accepted, and the connection closed without a response, `times` times",
    "cut_answer": "the job is accepted, and its response ends in the middle, `times` times",
    "slow_answer": "the job is accepted, and the response comes `delay_s` later",
    "poll_error": "polls get `status`, 500 by default, `times` times",
    "changes_mind": "`delay_s` after the last callback the job has failed after all, for callbacks and polls;"
    " with `failed` it has succeeded after all",
    "slow_image": "image bytes drip in, spread over `delay_s`",
    "wrong_type": "images come with content type text/plain",
    "html_image": "an HTML page comes where an image should be, with content type image/png",
    "gzip_image": "images come gzip-encoded, though nobody asked for it",
    "unended_image": "images come whole by their length, but without the mark of their end",
    "expired_link": "links answer `status`; a poll after that gives fresh ones, unless `forever`",
    "truncated_image": "half of the image comes and the connection ends",
    "reset_image": "half of the image comes and the connection is reset",
    "stalled_image": "half of the image comes and then nothing more, while the connection stays open",
    "wrong_length": "the whole image comes under a Content-Length that is `off_by` bytes off",
    "other_bytes": "each download of an image after its first has other bytes, of the same picture",
    "single_use_link": "each image can be downloaded once; then its links answer `status`, 404 by default",
    "redirect_image": "links answer 302 and lead to `url`",
    "partial_images": "the last image is never there",
    "bytes": "images are valid PNG files of about `bytes` bytes",
}
"""Faults that every gateway has; each has more of its own."""
SIGNED: dict[str, str] = {
    "wrong_signature": "callbacks are signed with another key",
    "unsigned": "callbacks are not signed",
}
"""Faults of gateways that sign."""
DATED: dict[str, str] = {**SIGNED, "stale_signature": "callbacks are signed as if sent an hour ago"}
"""Faults of gateways that sign the time of sending too."""


class BadFault(Exception):
    """The request asks for an unknown fault; the message lists the known ones."""


class Asked(BaseModel):
    """The faults of one job, with their options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fault: tuple[str, ...] = ()
    dialect: str | None = None
    delay_s: float = Field(default=1.0, ge=0, le=3600)
    times: int | None = Field(default=None, ge=1, le=100)
    at_once: bool = False
    message: str = "Provider returned an error: content policy"
    retry_after_s: int = Field(default=1, ge=0)
    url: str = "http://169.254.169.254/latest/meta-data/"
    status: int | None = Field(default=None, ge=400, le=599)
    off_by: int = Field(default=-100, ge=-(2**31), le=2**31)
    forever: bool = False
    bytes: int | None = Field(default=None, ge=1, le=2**31)

    def __contains__(self, kind: str) -> bool:
        return kind in self.fault


def read(headers: Mapping[str, str], body_value: object, kinds: Iterable[str]) -> Asked:
    """Parse the requested faults; the header overrides the body. Raises BadFault."""
    header = headers.get(HEADER)
    value = _from_header(header) if header else body_value
    if value is None:
        return Asked()
    options = {"fault": value} if isinstance(value, str) else value
    if not isinstance(options, dict):
        raise BadFault(f"sandbox: a fault's name or an object, not {type(value).__name__}")
    try:
        asked = Asked.model_validate({**options, "fault": _kinds(options.get("fault"))})
    except ValidationError as error:
        known = ", ".join(Asked.model_fields)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadFault(f"sandbox.{where}: {first['msg']}; the options are {known}") from None
    _check(asked, kinds)
    return asked


def _kinds(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    names = value.split("+") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadFault("sandbox.fault: a name, or several")
    return tuple(name.strip() for name in names)


def _check(asked: Asked, kinds: Iterable[str]) -> None:
    for kind in asked.fault:
        if kind not in kinds:
            raise BadFault(f"sandbox: there is no fault {kind!r} here; there are {', '.join(kinds)}")
    if "bytes" in asked and asked.bytes is None:
        raise BadFault("sandbox.bytes: say how many")


def _from_header(text: str) -> dict[str, Any]:
    name, *options = text.split(";")
    found: dict[str, Any] = {"fault": name.strip() or None}
    for option in options:
        key, _, value = option.partition("=")
        try:
            found[key.strip()] = json.loads(value)
        except ValueError:
            found[key.strip()] = value.strip()
    return found
