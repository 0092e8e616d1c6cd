"""What the API takes in, checked, and how jobs, outputs and books look from outside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    field_validator,
)

from receiver import answers
from receiver.errors import InvalidRequest
from storage.records import (
    Attempt,
    Books,
    Circuit,
    Delivery,
    Job,
    JobError,
    JobRequest,
    Output,
    Status,
    rfc3339,
)
from storage.search import Found

UNION_PARTS = frozenset({"str", "int", "constrained-str"})
"""What pydantic names beside a field that may be one type or another."""

TagName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
# What SQL text, JSON and S3 metadata can all carry.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Seed = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
TagValue = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]


EXAMPLE: JsonValue = {
    "gateway": "apiframe",
    "model": "imagen-4-fast",
    "prompt": "a red kite over a grey harbour",
    "aspect_ratio": "16:9",
    "tags": {"campaign": "autumn"},
}


class SubmitBody(BaseModel):
    """What a job is asked for with."""

    model_config = ConfigDict(
        extra="forbid", strict=True, hide_input_in_errors=True, json_schema_extra={"examples": [EXAMPLE]}
    )

    gateway: str = Field(description="Which gateway to send it to: `apiframe` or `api-in-one`.")
    model: Text = Field(min_length=1, max_length=128, description="The gateway's own word for the model.")
    prompt: Text = Field(min_length=1, max_length=20_000, description="What to draw.")
    negative_prompt: Text | None = Field(None, max_length=20_000, description="What to leave out.")
    aspect_ratio: Text | None = Field(None, max_length=32, description="Such as `16:9`.")
    num_images: int | None = Field(None, ge=1, le=64, description="How many images.")
    seed: Seed | int | None = Field(None, description="A number or a text, as the gateway takes it.")
    params: dict[str, Any] = Field(
        default_factory=dict, description="Passed to the gateway as they are: `image_size`, ..."
    )
    tags: dict[TagName, TagValue] = Field(
        default_factory=dict, max_length=32, description="Your own words, to find the job by."
    )
    notify_url: None = Field(None, description="Reserved; notifications are not offered yet.")
    unsupported: Literal["refuse", "ignore"] = Field(
        "refuse", description="What to do with a parameter that the gateway does not have."
    )

    @field_validator("prompt")
    @classmethod
    def _not_blank(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("must not be blank")
        return prompt

    @field_validator("seed")
    @classmethod
    def _short_seed(cls, seed: str | int | None) -> str | int | None:
        if seed is not None and len(str(seed)) > 500:
            raise ValueError("must have 500 digits at most")
        return seed

    @field_validator("params")
    @classmethod
    def _plain_json(cls, params: dict[str, Any]) -> dict[str, Any]:
        # `NaN` and `1e999` are read as numbers, but nothing that they are put into could be read again.
        try:
            json.dumps(params, allow_nan=False)
        except ValueError:
            raise ValueError("must not hold NaN, Infinity, or a number too large for one") from None
        return params

    def request(self) -> JobRequest:
        """The same in the ledger's words."""
        return JobRequest(
            model=self.model,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            aspect_ratio=self.aspect_ratio,
            num_images=self.num_images,
            seed=None if self.seed is None else str(self.seed),
            params=self.params,
            tags=dict(self.tags),
        )


class RetryBody(BaseModel):
    """How a job is put back to work."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    resubmit: bool = Field(
        default=False, description="Send it to the gateway again, which may be charged again."
    )


def read_retry(body: bytes) -> RetryBody:
    """Read a retry body, which may be empty; raise InvalidRequest that names every field that is wrong."""
    try:
        return RetryBody.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise InvalidRequest([fault(one) for one in error.errors()]) from None


def read_submit(body: bytes) -> SubmitBody:
    """Read a submit body; raise InvalidRequest that names every field that is wrong."""
    try:
        return SubmitBody.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest([fault(one) for one in error.errors()]) from None


def fault(one: Mapping[str, Any]) -> dict[str, str]:
    """One of pydantic's errors as we tell it: which field, and what is wrong with it."""
    where = ".".join(str(part) for part in one["loc"] if part not in UNION_PARTS)
    return {"field": where or "body", "message": str(one["msg"]).removeprefix("Value error, ")}


def job_view(job: Job, outputs: Sequence[str]) -> answers.Job:
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


def _failure(error: JobError | None) -> answers.Failure | None:
    if error is None:
        return None
    return {
        "code": error.code,
        "message": error.message,
        "at_fault": error.at_fault,
        "details": error.details,
    }


def timeline(job: Job, deliveries: Sequence[Delivery], outputs: Sequence[Output]) -> list[answers.Event]:
    """Everything that happened to a job, oldest first."""
    events: list[tuple[int, answers.Event]] = [
        (at, {"at": rfc3339(at), "event": "moved", "status": status}) for status, at in job.moves
    ]
    events += [(attempt.last_at, _attempted(attempt)) for attempt in job.attempt_log]
    events += [(delivery.received_at, _delivered(delivery)) for delivery in deliveries]
    events += [
        (output.stored_at, {"at": rfc3339(output.stored_at), "event": "stored", "output": output.id})
        for output in outputs
    ]
    return [event for _, event in sorted(events, key=lambda one: one[0])]


def _attempted(attempt: Attempt) -> answers.Attempted:
    return {
        "at": rfc3339(attempt.last_at),
        "event": "attempt",
        "step": attempt.step,
        "code": attempt.code,
        "message": attempt.message,
        "first_at": rfc3339(attempt.first_at),
        "times": attempt.times,
    }


def _delivered(delivery: Delivery) -> answers.Delivered:
    return {
        "at": rfc3339(delivery.received_at),
        "event": "delivery",
        "id": delivery.id,
        "signature": delivery.signature,
        "effect": delivery.effect,
        "body_sha256": delivery.body_sha256,
    }


def output_view(found: Found) -> answers.Output:
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


def books_view(total: Books, pages: Mapping[str, Books], now: int) -> answers.Books:
    """The books as the API shows them."""
    return {**_page(total, now), "gateways": {name: _page(page, now) for name, page in sorted(pages.items())}}


def _page(page: Books, now: int) -> answers.Page:
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


def gateways_view(names: Sequence[str], circuits: Sequence[Circuit], now: int) -> answers.Gateways:
    """How the gateways and their image hosts are, as the API shows it."""
    of = {circuit.name: _circuit(circuit, now) for circuit in circuits if circuit.kind == "gateway"}
    hosts = [circuit for circuit in circuits if circuit.kind == "image_host"]
    return {
        "gateways": [{"name": name, "circuit": of.get(name)} for name in names],
        "image_hosts": [{"name": host.name, "circuit": _circuit(host, now)} for host in hosts],
    }


def _circuit(circuit: Circuit, now: int) -> answers.Circuit:
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
