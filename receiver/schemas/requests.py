"""What the API takes in, checked: the bodies of its requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
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

from receiver.errors import InvalidRequest
from storage.models import JobRequest

UNION_PARTS = frozenset({"str", "int", "constrained-str"})
"""What pydantic names beside a field that may be one type or another."""

TagName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
# What SQL text, JSON and S3 metadata can all carry.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Seed = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
TagValue = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]

MAX_PARAMS = 64 * 1024

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
        default_factory=dict,
        description="Passed to the gateway as they are: `image_size`, ... At most 64 KiB.",
    )
    tags: dict[TagName, TagValue] = Field(
        default_factory=dict, max_length=32, description="Your own words, to find the job by."
    )
    notify_url: Text | None = Field(
        None,
        max_length=2048,
        description="Where to notify your application once the job is over; left out or null means "
        "`DARKROOM_NOTIFY__URL`, and an empty text nowhere.",
    )
    unsupported: Literal["refuse", "ignore"] = Field(
        "refuse", description="What to do with a parameter that the gateway does not have."
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
