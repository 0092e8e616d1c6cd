"""Validate the bodies of requests."""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

from receiver.errors import InvalidRequest
from receiver.schemas.faults import KEY, NO_NUL, fault
from receiver.schemas.tags import TagName
from storage.models import JobRequest

# What SQL text, JSON and S3 metadata can all carry.
Text = Annotated[str, StringConstraints(pattern=NO_NUL)]
Seed = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=NO_NUL)]
TagValue = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=NO_NUL)]

MAX_PARAMS = 64 * 1024
MAX_BATCH = 100
"""Jobs in one batch: they are written in one transaction, for which callbacks wait."""

_OF_REQUEST = {one.name for one in fields(JobRequest)}

EXAMPLE = {
    "gateway": "apiframe",
    "model": "imagen-4-fast",
    "prompt": "a red kite over a grey harbour",
    "aspect_ratio": "16:9",
    "tags": {"campaign": "autumn"},
}


def _without_defaults(schema: dict[str, Any]) -> None:
    """Leave out defaults, because client generators make a field with a default required."""
    for field in schema["properties"].values():
        field.pop("default", None)


class _Body(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        json_schema_extra=_without_defaults,
        defer_build=True,
    )


Parsed = TypeVar("Parsed", bound=_Body)


def _with_example(schema: dict[str, Any]) -> None:
    _without_defaults(schema)
    schema["examples"] = [EXAMPLE]


class SubmitBody(_Body):
    """A job to submit."""

    model_config = ConfigDict(json_schema_extra=_with_example)

    gateway: str = Field(description="The gateway to send it to, such as `apiframe`.")
    model: Text = Field(
        min_length=1,
        max_length=128,
        description="The gateway's own name for the model, in any case; `GET /v1/models` has those that are "
        "known. Another gateway's model and a mistyped name are refused; a new name is accepted, with a "
        "warning on the job.",
    )
    prompt: Text = Field(min_length=1, max_length=20_000, description="What to generate.")
    negative_prompt: Text | None = Field(None, max_length=20_000, description="What to leave out.")
    aspect_ratio: Text | None = Field(None, max_length=32, description="Such as `16:9`.")
    num_images: int | None = Field(None, ge=1, le=64, description="How many images.")
    seed: Seed | int | None = Field(None, description="A number or a text, as the gateway takes it.")
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="Passed to the gateway as they are: `image_size`, ... At most 64 KiB.",
    )
    tags: dict[TagName, TagValue] = Field(
        default_factory=dict, max_length=32, description="Your own labels, to find the job and its images by."
    )
    notify_url: Text | None = Field(
        None,
        max_length=2048,
        description="Where to notify your application when the job finishes. Without it or with null: "
        "`DARKROOM_NOTIFY__URL`. An empty text: nowhere.",
    )
    unsupported: Literal["refuse", "ignore"] = Field(
        "refuse",
        description="What to do with a parameter that the gateway does not have: `refuse` (the default) "
        "or `ignore`, which leaves it out and names it in the job. `ignore` also sends a model that looks "
        "mistyped as it is.",
    )

    @field_validator("prompt")
    @classmethod
    def _not_blank(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("must not be blank")
        return prompt

    @field_validator("params")
    @classmethod
    def _short_params(cls, params: dict[str, Any]) -> dict[str, Any]:
        if len(json.dumps(params)) > MAX_PARAMS:
            raise ValueError(f"must have {MAX_PARAMS} bytes at most as JSON")
        return params

    @field_validator("seed")
    @classmethod
    def _short_seed(cls, seed: str | int | None) -> str | int | None:
        if seed is not None and len(str(seed)) > 500:
            raise ValueError("must have 500 digits at most")
        return seed

    def request(self) -> JobRequest:
        """Return it as the ledger has it."""
        given = {name: value for name, value in self if name in _OF_REQUEST}
        return JobRequest(**given | {"seed": None if self.seed is None else str(self.seed)})


def _judged_alone(row: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Return a row of a batch, or InvalidRequest in its place: one bad row says nothing about the others."""
    try:
        return validate(row)
    except ValidationError as error:
        return _invalid(error)


class BatchJob(SubmitBody):
    """A job of a batch."""

    model_config = ConfigDict(json_schema_extra=_with_example)

    idempotency_key: Annotated[str, StringConstraints(pattern=KEY)] | None = Field(
        None,
        description="Your own name for this job, like the header of `POST /v1/jobs`: sent again with the "
        "same key, it returns the same job.",
    )


class BatchBody(_Body):
    """Jobs to submit together."""

    jobs: list[Annotated[BatchJob, WrapValidator(_judged_alone)]] = Field(
        min_length=1, max_length=MAX_BATCH, description=f"The jobs: {MAX_BATCH} at most."
    )
    dry_run: bool = Field(
        default=False,
        description="Only judge the jobs: nothing is created.",
        examples=[False],
    )

    @property
    def rows(self) -> Sequence[BatchJob | InvalidRequest]:
        """The jobs in order, and InvalidRequest in place of each that is invalid."""
        return self.jobs


class RetryBody(_Body):
    """How to retry a job."""

    resubmit: bool = Field(
        default=False,
        description="Send it to the gateway again, which may be charged again.",
        examples=[False],
    )


class TestBody(_Body):
    """Where a test notification goes."""

    url: Text | None = Field(
        default=None,
        description="By default that of DARKROOM_NOTIFY__URL.",
        examples=["https://app.example.com/webhooks/darkroom"],
    )


def parse_body(kind: type[Parsed], body: bytes) -> Parsed:
    """Parse a JSON body; raise InvalidRequest that names every wrong field."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: ValidationError) -> InvalidRequest:
    found: dict[str, str] = {}
    for one in map(fault, error.errors()):
        field, sentence = one["field"], one["message"]
        # A field that may be of two types has a fault for each.
        other = f"{found.get(field)} or {sentence.removeprefix('must be ')}"
        found[field] = other if other.startswith("must be ") else found.get(field, sentence)
    return InvalidRequest([{"field": field, "message": sentence} for field, sentence in found.items()])
