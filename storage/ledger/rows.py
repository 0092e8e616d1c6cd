"""Convert rows of the ledger to values of `storage.models`."""

from dataclasses import fields
from typing import Any

from storage import models
from storage.statements import AnyRow

REQUEST_FIELDS = tuple(field.name for field in fields(models.JobRequest) if field.name != "ignored")
_ERROR = tuple(field.name for field in fields(models.JobError))
_CONVERTED = {"status", "request", "result", "found_by", "error", "attempt_log", "moves"}
_SAME_NAME = tuple(field.name for field in fields(models.Job) if field.name not in _CONVERTED)


def to_job(row: AnyRow) -> models.Job:
    """Read a row of `jobs`."""
    error = [row[f"error_{name}"] for name in _ERROR]
    return models.Job(
        **{name: row[name] for name in _SAME_NAME},
        status=models.Status(row["status"]),
        request=models.JobRequest(
            **{name: row[name] for name in REQUEST_FIELDS}, ignored=tuple(row["ignored"])
        ),
        result=models.JobResult(
            model=row["result_model"],
            seed=row["result_seed"],
            echoed_seed=row["echoed_seed"],
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


def error_columns(error: models.JobError | None) -> dict[str, Any]:
    """Return the columns of `jobs` that hold a job's error."""
    return {f"error_{name}": error and getattr(error, name) for name in _ERROR}
