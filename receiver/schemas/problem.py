"""Define an error in JSON (RFC 9457 problem details), and the response to a callback."""

from typing import Annotated, Literal

from pydantic import Field

from receiver.schemas.types import Count, Digest, Resource, Time, absent


class FieldError(Resource):
    """One thing that is wrong with a request."""

    field: Annotated[str, Field(examples=["prompt"])]
    message: Annotated[str, Field(examples=["must not be blank"])]


class MissingObject(Resource):
    """What is known of an archived object that is not in the bucket as it was."""

    key: str
    sha256: Digest | None = absent()
    """Of the archived image; left out for a record."""
    bytes: Count | None = absent()
    bytes_found: Count | None = absent()
    """How many bytes it has now; left out if the object is not there."""
    stored_at: Time | None = absent()


class Problem(Resource):
    """An error, as RFC 9457 problem details."""

    type: str
    title: str
    status: int
    """The HTTP status once more."""
    code: str
    """A short word that stays the same; programs should look at this one."""
    detail: str
    """What to do, in a sentence."""
    faults: tuple[FieldError, ...] = absent(())
    """Each field that is wrong, where fields are."""
    candidates: tuple[str, ...] = absent(())
    """Some of the ids that have the given beginning, where several have."""
    object: MissingObject | None = absent()
    """The object that is missing from the bucket, where one is."""


class CallbackReady(Resource):
    """A callback may be sent to this URL."""

    status: Literal["ready"]


class CallbackAccepted(Resource):
    """A callback was recorded, or was recorded before."""

    status: Literal["accepted", "duplicate"]
