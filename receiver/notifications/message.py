"""Build the body and the headers of a notification, a Standard Webhooks message. Pure."""

import json
from collections.abc import Sequence
from typing import Any

from receiver import signatures
from receiver.schemas.notification import Message, TestMessage
from receiver.version import installed_version
from storage.ledger.notifications import Notification
from storage.models import Job, Output

MAX_WHOLE_BYTES = 128 * 1024
"""A longer body goes without its long texts: receivers should not have to take more."""

MAX_CUT_CHARACTERS = 200
MAX_CUT_OUTPUTS = 32


def body_of(one: Notification, job: Job, outputs: Sequence[Output], links: str) -> bytes:
    """Return the body of a notification; the same bytes at each try. `links`: what its URLs begin with."""
    message = Message.of(one, job, outputs, links).model_dump(mode="json")
    body = _written(message)
    if len(body) <= MAX_WHOLE_BYTES:
        return body
    _cut(message["data"])
    return _written(message)


def trial_body(now: int) -> bytes:
    """Return the body of a test notification, made at `now` (milliseconds)."""
    return _written(TestMessage.at(now).model_dump(mode="json"))


def signed_headers(message_id: str, body: bytes, secrets: Sequence[str], now: int) -> dict[str, str]:
    """Return the headers of a message that is sent at `now` (milliseconds), signed with each secret."""
    return {
        "Content-Type": "application/json",
        "User-Agent": f"Darkroom/{installed_version()}",
        **signatures.sign(secrets, message_id, now // 1000, body),
    }


def _written(message: Any) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _cut(data: dict[str, Any]) -> None:
    """Take out whatever may be long, and leave what a receiver needs to ask for it."""
    data["whole"] = False
    request, error = data["job"]["request"], data["job"]["error"]
    request |= {"params": {}, "tags": {}, "prompt": _begin(request["prompt"])}
    request["negative_prompt"] = _begin(request["negative_prompt"])
    if error is not None:
        error |= {"details": None, "message": _begin(error["message"])}
    for holder in (data, data["job"]):
        holder["outputs"] = holder["outputs"][:MAX_CUT_OUTPUTS]
        for output in holder["outputs"]:
            output |= {"tags": {}, "prompt": _begin(output["prompt"])}


def _begin(text: str | None) -> str | None:
    return text and text[:MAX_CUT_CHARACTERS]
