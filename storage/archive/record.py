"""Build a job's record: the JSON document that the bucket keeps of it, in the form `darkroom/record/1`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from storage.archive.store_facts import StoreFacts
from storage.models import (
    Attempt,
    Delivery,
    FoundBy,
    Job,
    JobError,
    Output,
    Status,
    Verdict,
    rfc3339,
)
from storage.urls import origin_of

SCHEMA = "darkroom/record/1"
_NOT_RECORDED = frozenset({"job_id", "missing_since"})


def record_document(
    job: Job,
    outputs: Sequence[Output],
    deliveries: Sequence[Delivery],
    *,
    closing: tuple[Status, int],
    missing: JobError | None,
    seed_supported: bool | None,
    store: StoreFacts,
) -> dict[str, Any]:
    """Return the record of a finished job, with everything that is known of it.

    `closing` is the move that follows once the record is stored, and its time; `missing` says why there are
    fewer outputs than the gateway made. `store`: what the bucket does with the headers of a write.

    Readers ignore unknown fields; the meaning of a field never changes.
    """
    asked = {name: value for name, value in asdict(job.request).items() if name != "tags"}
    return {
        "schema": SCHEMA,
        "job": {
            "id": job.id,
            "status": closing[0],
            "gateway": job.gateway,
            "gateway_job_id": job.gateway_job_id,
            "idempotency_key": job.idempotency_key,
            "request_sha256": job.request_sha256,
            "submission": job.submission,
            "submitted_at": None if job.submission_at is None else rfc3339(job.submission_at),
            "request_id": job.request_id,
            # Without path and query, which may hold a secret; the request's digest covers them.
            "notify_url": job.notify_url and origin_of(job.notify_url),
            "tags": dict(job.request.tags),
            "moves": [{"status": status, "at": rfc3339(at)} for status, at in (*job.moves, closing)],
            "attempts": [_attempt(attempt) for attempt in job.attempt_log],
        },
        "request": {"asked": asked, "sent": job.sent},
        "seed": {
            "requested": job.request.seed,
            "returned": job.result.seed,
            # Our own input sent back, which proves no seed.
            "echoed": job.result.echoed_seed,
            "supported": seed_supported,
        },
        "result": _result(job, missing),
        "evidence": _evidence(job, deliveries),
        "store": {
            "create_only": store.create_only,
            "sha256": store.sha256,
            "verified_by": "store" if store.trusts_sha256 else "read_back",
        },
        "outputs": [_output_entry(output) for output in outputs],
    }


def _result(job: Job, missing: JobError | None) -> dict[str, Any]:
    return {
        "model_requested": job.request.model,
        "model_reported": job.result.model,
        "credits": job.result.credits,
        "credits_estimated": job.result.credits_estimated,
        "credits_before": job.credits_before,
        "credits_before_estimated": job.credits_before_estimated,
        "images_requested": job.request.num_images,
        "images_returned": job.result.images_returned,
        "withheld": [asdict(one) for one in job.result.withheld],
        "missing": missing and {name: getattr(missing, name) for name in ("code", "message", "at_fault")},
        "reply": job.result.reply,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    times = {"first_at": rfc3339(attempt.first_at), "last_at": rfc3339(attempt.last_at)}
    return asdict(attempt) | times


def _evidence(job: Job, deliveries: Sequence[Delivery]) -> dict[str, Any]:
    return {
        "found_by": job.found_by,
        "callback_expected": job.callback_expected,
        "confirmed_by": _confirmed_by(job, deliveries),
        "gateway_request_ids": [job.gateway_request_id] if job.gateway_request_id else [],
        "deliveries": [
            {
                "id": delivery.id,
                "received_at": rfc3339(delivery.received_at),
                "body_sha256": delivery.body_sha256,
                "signature": delivery.signature,
                "effect": delivery.effect,
            }
            for delivery in deliveries
        ],
    }


def _confirmed_by(job: Job, deliveries: Sequence[Delivery]) -> str:
    # Only deliveries of this result: a retry may have polled for what an earlier callback reported.
    since = job.moved_at(Status.READY) or 0
    proofs = [one for one in deliveries if one.effect == "ready" and (one.applied_at or 0) >= since]
    if any(one.signature is not Verdict.ANSWER for one in proofs):
        return "callback"
    return "submission" if job.found_by is FoundBy.SUBMISSION else "poll"


def _output_entry(output: Output) -> dict[str, Any]:
    times = {
        "downloaded_at": output.downloaded_at and rfc3339(output.downloaded_at),
        "stored_at": rfc3339(output.stored_at),
    }
    return {name: value for name, value in asdict(output).items() if name not in _NOT_RECORDED} | times
