"""Convert rows of the ledger to values of `storage.models`, and back."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, fields, replace
from typing import Any, TypedDict

from storage import models
from storage.ledger.search_index import fold
from storage.statements import AnyRow

_REQUEST = tuple(field.name for field in fields(models.JobRequest) if field.name != "ignored")
_ERROR = tuple(field.name for field in fields(models.JobError))
_CONVERTED = {"status", "request", "result", "found_by", "error", "attempt_log", "moves"}
_SAME_NAME = tuple(field.name for field in fields(models.Job) if field.name not in _CONVERTED)

MAX_ATTEMPTS = 40
"""How many entries a job's log of attempts has at most."""


class Changes(TypedDict, total=False):
    """What a step may set on a job."""

    gateway_job_id: str | None
    gateway_request_id: str | None
    callback_expected: bool
    sent: Mapping[str, Any]
    result: models.JobResult
    found_by: models.FoundBy | None
    error: models.JobError | None
    records: int
    submission_at: int


def from_changes(changes: Changes, known: models.JobResult) -> dict[str, Any]:
    """Return the columns of `jobs` that changes set; less certain credits do not overwrite `known` ones."""
    others = ((name, value) for name, value in changes.items() if name not in {"result", "error"})
    columns: dict[str, Any] = dict(others)
    if (result := changes.get("result")) is not None:
        paid = max(result, known, key=_certainty)
        columns |= {
            "result_model": result.model,
            "result_seed": result.seed,
            "credits": paid.credits,
            "credits_estimated": paid.credits_estimated,
            "images": [asdict(image) for image in result.images],
            "reply": result.reply,
        }
        if result.images_returned is not None:
            columns["images_returned"] = result.images_returned
            columns["withheld"] = [asdict(one) for one in result.withheld] or None
    if "error" in changes:
        error = changes["error"]
        columns |= {f"error_{name}": error and getattr(error, name) for name in _ERROR}
    return columns


def _certainty(result: models.JobResult) -> int:
    """Rank what is known of credits: reported by the gateway, estimated, unknown."""
    if result.credits is None:
        return 0
    return 1 if result.credits_estimated else 2


def _asked(request: models.JobRequest) -> dict[str, Any]:
    # `asdict` would copy every value, and take twenty times as long.
    return {name: getattr(request, name) for name in (*_REQUEST, "ignored")}


def new_job(job_id: str, gateway: str, request: models.JobRequest, now: int) -> dict[str, Any]:
    """Return the columns of a job that is queued, and due now."""
    return {
        "id": job_id,
        "gateway": gateway,
        "status": models.Status.QUEUED,
        "prompt_folded": fold(request.prompt),
        "callback_expected": False,
        "credits_estimated": False,
        "images": [],
        "attempts": 0,
        "next_attempt_at": now,
        "created_at": now,
        "updated_at": now,
        "moves": [[models.Status.QUEUED, now]],
        **_asked(request),
    }


def to_job(row: AnyRow) -> models.Job:
    """Read a row of `jobs`."""
    error = [row[f"error_{name}"] for name in _ERROR]
    return models.Job(
        **{name: row[name] for name in _SAME_NAME},
        status=models.Status(row["status"]),
        request=models.JobRequest(**{name: row[name] for name in _REQUEST}, ignored=tuple(row["ignored"])),
        result=models.JobResult(
            model=row["result_model"],
            seed=row["result_seed"],
            credits=row["credits"],
            credits_estimated=row["credits_estimated"],
            # Earlier versions did not note an image's place.
            images=tuple(models.ImageRef(**{"index": n} | image) for n, image in enumerate(row["images"])),
            images_returned=row["images_returned"],
            withheld=tuple(models.Withheld(**one) for one in row["withheld"] or ()),
            reply=row["reply"],
        ),
        found_by=models.FoundBy(row["found_by"]) if row["found_by"] else None,
        error=models.JobError(*error) if row["error_code"] else None,
        attempt_log=tuple(models.Attempt(*entry) for entry in row["attempt_log"]),
        moves=tuple((models.Status(status), at) for status, at in row["moves"]),
    )


def to_delivery(row: AnyRow) -> models.Delivery:
    """Read a row of `deliveries`."""
    return models.Delivery(**{**row, "signature": models.Verdict(row["signature"])})


def append_attempts(log: Sequence[models.Attempt], news: Sequence[models.Attempt]) -> list[list[Any]]:
    """Append to a job's log of attempts; a repetition of the last entry is counted there.

    Beyond `MAX_ATTEMPTS` the first quarter and the latest stay, and the last one of each kind: that a gateway
    may have accepted a submission must not be forgotten.
    """
    entries = list(log)
    for attempt in news:
        last = entries[-1] if entries else None
        if last is not None and (last.step, last.code) == (attempt.step, attempt.code):
            entries[-1] = replace(attempt, first_at=last.first_at, times=last.times + attempt.times)
        else:
            entries.append(attempt)
    while len(entries) > MAX_ATTEMPTS:
        del entries[_dispensable([(entry.step, entry.code) for entry in entries])]
    return [list(astuple(entry)) for entry in entries]


def _dispensable(kinds: Sequence[tuple[str, str]]) -> int:
    """Return the index of the oldest entry behind the first quarter that another of its kind follows."""
    first = MAX_ATTEMPTS // 4
    repeated = (n for n in range(first, len(kinds)) if kinds[n] in kinds[n + 1 :])
    return next(repeated, first)


def request_digest(gateway: str, request: models.JobRequest, notify_url: str | None) -> str:
    """Return a digest of a request, by which a reused idempotency key is checked."""
    asked = json.dumps([gateway, _asked(request), notify_url], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(asked.encode()).hexdigest()


def to_json(value: Any) -> str:
    """Return a value as JSON with few escapes: SQLite before 3.45 finds no name that is written with one."""
    text = json.dumps(value, ensure_ascii=False)
    # A gateway may send half of a surrogate pair, which only an escape can hold.
    return text if text.isascii() or _encodable(text) else json.dumps(value)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
