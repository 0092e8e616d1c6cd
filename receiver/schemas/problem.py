"""Define an error in JSON (RFC 9457 problem details), and the response to a callback."""

from typing import Annotated, Literal

from pydantic import Field

from receiver.schemas.types import Resource, absent


class FieldError(Resource):
    """One thing that is wrong with a request."""

    field: Annotated[str, Field(examples=["prompt"])]
    message: Annotated[str, Field(examples=["must not be blank"])]


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


class CallbackReady(Resource):
    """A callback may be sent to this URL."""

    status: Literal["ready"]


class CallbackAccepted(Resource):
    """A callback was recorded, or was recorded before."""

    status: Literal["accepted", "duplicate"]
