"""How jobs, outputs, status and gateways look from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from receiver.schemas import responses
from storage.ledger.notifications import Notification
from storage.models import Attempt, Circuit, Delivery, Job, JobCounts, JobError, Output, Status, rfc3339
from storage.search.search import SearchHit


def job_view(job: Job, outputs: Sequence[str]) -> responses.Job:
    """A job as the API shows it."""
    request, result = job.request, job.result
    return {
        "id": job.id,
        "gateway": job.gateway,
        "gateway_job_id": job.gateway_job_id,
        "status": job.status,
        "request": {
            "model": request.model,
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "aspect_ratio": request.aspect_ratio,
            "num_images": request.num_images,
            "seed": request.seed,
            "params": request.params,
            "tags": request.tags,
            "ignored": list(request.ignored),
        },
        "result": {
            "model": result.model,
            "seed": result.seed,
            "credits": result.credits,
            "credits_estimated": result.credits_estimated,
            "credits_before": job.credits_before,
        },
        "error": _failure(job.error),
        "outputs": list(outputs),
        "found_by": job.found_by,
        "attempts": job.attempts,
        "next_attempt_at": None if job.next_attempt_at is None else rfc3339(job.next_attempt_at),
        "submission": job.submission,
        "request_id": job.request_id,
        "created_at": rfc3339(job.created_at),
        "updated_at": rfc3339(job.updated_at),
    }


def _failure(error: JobError | None) -> responses.Failure | None:
    if error is None:
        return None
    return {
        "code": error.code,
        "message": error.message,
        "at_fault": error.at_fault,
        "details": error.details,
    }


def timeline(
    job: Job,
    deliveries: Sequence[Delivery],
    outputs: Sequence[Output],
    notifications: Sequence[Notification],
) -> list[responses.Event]:
    """Everything that happened to a job, oldest first."""
    events: list[tuple[int, responses.Event]] = [
        (at, {"at": rfc3339(at), "event": "moved", "status": status}) for status, at in job.moves
    ]
    events += [(attempt.last_at, _attempted(attempt)) for attempt in job.attempt_log]
    events += [(delivery.received_at, _delivered(delivery)) for delivery in deliveries]
    events += [
        (output.stored_at, {"at": rfc3339(output.stored_at), "event": "stored", "output": output.id})
        for output in outputs
    ]
    events += [(one.tried_at or one.at, _notified(one)) for one in notifications]
    return [event for _, event in sorted(events, key=lambda one: one[0])]


def _attempted(attempt: Attempt) -> responses.Attempted:
    return {
        "at": rfc3339(attempt.last_at),
        "event": "attempt",
        "step": attempt.step,
        "code": attempt.code,
        "message": attempt.message,
        "first_at": rfc3339(attempt.first_at),
        "times": attempt.times,
    }


def _delivered(delivery: Delivery) -> responses.Delivered:
    return {
        "at": rfc3339(delivery.received_at),
        "event": "delivery",
        "id": delivery.id,
        "signature": delivery.signature,
        "effect": delivery.effect,
        "body_sha256": delivery.body_sha256,
    }


def _notified(one: Notification) -> responses.Notified:
    return {
        "at": rfc3339(one.tried_at or one.at),
        "event": "notified",
        "notification": one.id,
        "state": one.state,
        "attempts": one.attempts,
        "code": one.code,
    }


def output_view(found: SearchHit) -> responses.Output:
    """An output as the API shows it."""
    output, job = found.output, found.job
    return {
        "id": output.id,
        "job_id": output.job_id,
        "index": output.index,
        "key": output.key,
        "sha256": output.sha256,
        "bytes": output.bytes,
        "media_type": output.media_type,
        "width": output.width,
        "height": output.height,
        "seed": output.seed,
        "seed_requested": job.request.seed,
        "stored_at": rfc3339(output.stored_at),
        "gateway": job.gateway,
        "model": job.result.model or job.request.model,
        "model_requested": job.request.model,
        "prompt": job.request.prompt,
        "tags": job.request.tags,
        "version_id": output.version_id,
    }


def status_view(total: JobCounts, pages: Mapping[str, JobCounts], now: int) -> responses.ServiceStatus:
    """Return the status as the API shows it."""
    return {**_page(total, now), "gateways": {name: _page(page, now) for name, page in sorted(pages.items())}}


def _page(page: JobCounts, now: int) -> responses.Page:
    oldest = page.oldest_unfinished_at
    return {
        "accepted": page.accepted,
        "queued": page.counts[Status.QUEUED],
        "submitting": page.counts[Status.SUBMITTING],
        "running": page.counts[Status.RUNNING],
        "ready": page.counts[Status.READY],
        "archived": page.counts[Status.ARCHIVED],
        "partial": page.counts[Status.PARTIAL],
        "failed": page.counts[Status.FAILED],
        "balanced": page.balanced,
        "found_by_polling": page.found_by_polling,
        "oldest_unfinished_age_s": None if oldest is None else max(0.0, (now - oldest) / 1000),
    }


def gateways_view(names: Sequence[str], circuits: Sequence[Circuit], now: int) -> responses.Gateways:
    """How the gateways and their image hosts are, as the API shows it."""
    of = {circuit.name: _circuit(circuit, now) for circuit in circuits if circuit.kind == "gateway"}
    hosts = [circuit for circuit in circuits if circuit.kind == "image_host"]
    return {
        "gateways": [{"name": name, "circuit": of.get(name)} for name in names],
        "image_hosts": [{"name": host.name, "circuit": _circuit(host, now)} for host in hosts],
    }


def _circuit(circuit: Circuit, now: int) -> responses.Circuit:
    return {
        "state": circuit.state(now),
        "step": circuit.step,
        "code": circuit.code,
        "message": circuit.message,
        "at_fault": circuit.at_fault,
        "failures": circuit.failures,
        "since": rfc3339(circuit.since),
        "retry_at": None if circuit.retry_at is None else rfc3339(circuit.retry_at),
    }
