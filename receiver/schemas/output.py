"""Define an output in JSON: one archived image, and what made it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field

from receiver.schemas import types
from receiver.schemas.types import JOB_EXAMPLE, Count, Digest, OutputId, Resource, Time, absent, time
from storage.models import rfc3339

if TYPE_CHECKING:
    from storage import models


class Output(Resource):
    """One archived image, and what made it."""

    id: OutputId
    job_id: types.JobId
    index: Count
    """Its place among the job's images, from 0."""
    key: Annotated[str, Field(examples=[f"images/2026/11/22/{JOB_EXAMPLE}/0.png"])]
    """Where it is in the bucket."""
    sha256: Digest
    """Of its bytes, the same in the bucket as they came from the gateway."""
    bytes: Annotated[Count, Field(examples=[482_113])]
    media_type: Annotated[str, Field(examples=["image/png"])]
    width: Annotated[Count, Field(examples=[2816])]
    height: Annotated[Count, Field(examples=[1536])]
    seed: str | None
    """The gateway's own; null if it gave none. Never derived, never guessed."""
    seed_requested: str | None
    stored_at: Time
    gateway: types.GatewayName
    model: types.ModelName
    """As reported, or as requested where the gateway reports none."""
    model_requested: types.ModelName
    prompt: types.Prompt
    tags: types.Tags
    version_id: str | None
    """The object's version, where the bucket keeps versions."""
    image_url: Annotated[
        str, Field(examples=[f"https://darkroom.example.com/v1/outputs/{JOB_EXAMPLE}.0/image"])
    ]
    """Where the image can be fetched with a token, as long as it is archived; a path if no public URL is
    set."""
    thumbnail_url: Annotated[
        str, Field(examples=[f"https://darkroom.example.com/v1/outputs/{JOB_EXAMPLE}.0/thumbnail"])
    ]
    """Where a small image in WebP is, likewise."""
    missing_since: Time | None = absent()
    """Since when the bucket is known to lack the image, or to have one of another length; left out while it
    is there."""

    @classmethod
    def of(cls, output: models.Output, made_by: models.Job, links: str, /, **more: Any) -> Self:
        """Build it from an output of the ledger and its job; `more` are values of further fields.

        `links` is what its URLs begin with: the service's origin and path, as far as they are known.
        """
        request, at = made_by.request, f"{links}/v1/outputs/{output.id}"
        return cls.trusted(
            output,
            seed_requested=request.seed,
            stored_at=rfc3339(output.stored_at),
            missing_since=time(output.missing_since),
            gateway=made_by.gateway,
            model=made_by.result.model or request.model,
            model_requested=request.model,
            prompt=request.prompt,
            tags=request.tags,
            image_url=f"{at}/image",
            thumbnail_url=f"{at}/thumbnail",
            **more,
        )

    @property
    def file_name(self) -> str:
        """`<output id>.<extension>`, and never a path, whatever the service sent."""
        return re.sub(r"[^\w.-]", "_", f"{self.id}.{self.key.rpartition('.')[2]}")


class OutputPage(Resource):
    """Some outputs, those of the newest job first."""

    outputs: tuple[Output, ...]
    next_cursor: Annotated[OutputId | None, Field(examples=[None])]
    """The `cursor` of the next page; null on the last one."""
    hints: tuple[str, ...] = absent(())
    """What of the query may be mistyped: an unknown key, operator, gateway or model, and the nearest one.
    Absent where there is nothing to say."""
