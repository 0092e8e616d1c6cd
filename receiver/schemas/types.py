"""Define the base class of resources, and the types that their fields share."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import to_json

from storage.models import rfc3339

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"

JOB_EXAMPLE = "019a9f3e-5c1d-7b42-9d0e-3f6a8c2b7e51"
DIGEST_EXAMPLE = "9f2c1b7ad04e5c38e6f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7"

JOB_ID = f"^{UUID}$"
NUMBERED_ID = rf"^{UUID}\.[0-9]{{1,6}}$"
MESSAGE_ID = rf"^msg_{UUID}_[0-9]{{1,6}}$"
_BEGINNING = "[0-9a-fA-F-]{8,36}"
JOB_NAME = f"^{_BEGINNING}$"
DIGEST = r"^[0-9a-f]{64}$"

JobId = Annotated[str, StringConstraints(pattern=JOB_ID), Field(examples=[JOB_EXAMPLE])]
_Numbered = Annotated[str, StringConstraints(pattern=NUMBERED_ID)]
OutputId = Annotated[_Numbered, Field(examples=[f"{JOB_EXAMPLE}.0"])]
NotificationId = Annotated[
    str, StringConstraints(pattern=MESSAGE_ID), Field(examples=[f"msg_{JOB_EXAMPLE}_1"])
]
JobName = Annotated[str, StringConstraints(pattern=JOB_NAME), Field(examples=[JOB_EXAMPLE])]
"""A job's id or its beginning, where that fits no other job; as the next two of outputs and notifications."""
OutputName = Annotated[
    str, StringConstraints(pattern=rf"^{_BEGINNING}\.[0-9]{{1,6}}$"), Field(examples=[f"{JOB_EXAMPLE}.0"])
]
NotificationName = Annotated[
    str,
    StringConstraints(pattern=rf"^(msg_)?{_BEGINNING}([._][0-9]{{1,6}})?$"),
    Field(examples=[f"msg_{JOB_EXAMPLE}_1"]),
]
Digest = Annotated[str, StringConstraints(pattern=DIGEST), Field(examples=[DIGEST_EXAMPLE])]
Time = Annotated[str, Field(examples=["2026-11-22T09:30:00.000Z"], json_schema_extra={"format": "date-time"})]
"""RFC 3339, in UTC, to the millisecond."""
_FAULTS = ["request", "gateway", "image", "archive", "operator"]
AtFault = Annotated[str, Field(examples=["gateway"], json_schema_extra={"enum": _FAULTS})]
Count = Annotated[int, Field(ge=0)]
ModelName = Annotated[str, Field(examples=["imagen-4-fast"])]
Prompt = Annotated[str, Field(examples=["a red kite over a grey harbour"])]
Tags = Annotated[Mapping[str, str], Field(examples=[{"campaign": "autumn"}])]
GatewayName = Annotated[str, Field(examples=["apiframe"])]
"""A gateway, or a named account of it: `apiframe.second`."""
NEWER_TOO: Any = Field(union_mode="left_to_right")
"""Marks a union of what is known and of what a newer service may send; `/openapi.json` has the first only."""


class Resource(BaseModel):
    """One thing in JSON. Fields that only a newer service knows are kept, so they reach `model_dump`."""

    model_config = ConfigDict(frozen=True, extra="allow", from_attributes=True, defer_build=True)

    @classmethod
    def trusted(cls, row: object, **more: Any) -> Self:
        """Build it without validation: fields in `more`, and all others as the attributes of `row`.

        `model_construct` does the same, at six times the cost.
        """
        made, put = object.__new__(cls), object.__setattr__
        fields = {
            name: more[name] if name in more else getattr(row, name) for name in cls.__pydantic_fields__
        }
        put(made, "__dict__", fields)
        put(made, "__pydantic_fields_set__", set())
        put(made, "__pydantic_extra__", {})
        put(made, "__pydantic_private__", None)
        return made

    def to_json(self) -> bytes:
        """Return it as compact JSON."""
        return to_json(self)


def _not_null(schema: dict[str, Any]) -> None:
    schema.pop("default", None)
    if "anyOf" in schema:
        schema |= schema.pop("anyOf")[0]


def absent(empty: Any = None) -> Any:
    """Return the settings of a field that is left out of the JSON while it is `empty`."""
    return Field(default=empty, exclude_if=lambda value: value == empty, json_schema_extra=_not_null)


def time(ms: int | None) -> str | None:
    """Return a time in milliseconds since 1970 as RFC 3339, or None."""
    return None if ms is None else rfc3339(ms)
