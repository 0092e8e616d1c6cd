"""Define the data of server-sent events in JSON."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, WithJsonSchema

from receiver.schemas.types import GatewayName, JobId, OutputId, Resource, Time
from storage.models import Status


class JobMoved(Resource):
    """The data of `event: job`."""

    job_id: JobId
    gateway: GatewayName
    at: Time
    status: Annotated[str, Field(json_schema_extra={"enum": list(Status)})]
    error_code: str | None


class OutputArchived(Resource):
    """The data of `event: output`."""

    job_id: JobId
    gateway: GatewayName
    at: Time
    output_id: OutputId


class Reset(Resource):
    """The data of `event: reset`."""

    reason: Literal["forgotten", "unknown"]


EventData = JobMoved | OutputArchived | Reset
KINDS: dict[str, type[EventData]] = {"job": JobMoved, "output": OutputArchived, "reset": Reset}


def _described(kind: str, data: type[EventData]) -> dict[str, Any]:
    content = {"contentMediaType": "application/json", "contentSchema": TypeAdapter(data).json_schema()}
    fields = {"id": {"type": "string"}, "event": {"const": kind}, "data": {"type": "string", **content}}
    return {"type": "object", "required": list(fields), "properties": fields}


SentEvent = Annotated[
    dict[str, str], WithJsonSchema({"oneOf": [_described(kind, data) for kind, data in KINDS.items()]})
]
"""One event: before OpenAPI 3.2, the schema of a stream is that of each event."""
