"""Everything that can go wrong, as one tree.

DarkroomError
├── SettingsError            bad_settings            a setting is missing or wrong; nothing starts
├── RequestError             (what a caller of the API got wrong)
│   ├── InvalidRequest       invalid_request         one or more fields are wrong, each named
│   ├── UnsupportedParameter unsupported_parameter   the gateway has no such parameter
│   ├── UnknownGateway       unknown_gateway         not one of the configured gateways
│   ├── BodyTooLarge         body_too_large          more bytes than the limit
│   ├── TooSlow              too_slow                the body did not come in time
│   ├── TooManyRequests      too_many_requests       more requests than this token or address may make
│   ├── IdempotencyConflict  idempotency_conflict    the key was used for another request
│   ├── NotRetryable         not_retryable           it is not failed or partial, or nothing can help
│   ├── NeedsResubmit        needs_resubmit          only a new submission could help, which may cost credits
│   ├── NoSuchThing          not_found               no such job, output or record
│   ├── UnsatisfiableRange   unsatisfiable_range     the image has no bytes in the range asked for
│   ├── NoThumbnail          no_thumbnail            the image cannot be decoded within the limits
│   ├── Unauthorized         unauthorized            no token, or an unknown one
│   ├── Forbidden            forbidden               the token's scope does not reach this far
│   └── StaleForm            stale_form              sent from another session than its form
├── CallbackError            (what a callback got wrong)
│   ├── BadToken             bad_token               forged, expired, for another gateway, or missing
│   ├── BadSignature         bad_signature           the gateway's own signature does not fit
│   ├── MalformedCallback    malformed_callback      not JSON, or not this gateway's shape
│   ├── JobMismatch          job_mismatch            it speaks of another job than its URL
│   ├── TooManyCallbacks     too_many_callbacks      its job has had as many as a job may have
│   └── UnknownJob           unknown_job             a true token for a job that the ledger does not know
├── GatewayError             (what a gateway answered, or did not)
│   ├── GatewayRefused       gateway_refused         it will never take this request
│   ├── GatewayUnauthorized  gateway_unauthorized    it does not accept our key
│   ├── OutOfCredits         out_of_credits          the account has too few credits
│   ├── RateLimited          rate_limited            it asks us to wait
│   ├── GatewayUnavailable   gateway_unavailable     it could not be reached, or answered 5xx
│   ├── OutcomeUnknown       outcome_unknown         sent, but the answer was lost
│   ├── SubmittedBefore      submitted_before        it took this job at an earlier try, in other words
│   ├── UnknownGatewayJob    unknown_gateway_job     it does not know the job that we ask about
│   └── GarbledAnswer        garbled_answer          it answered something that cannot be read
├── ImageError               (what came, or did not, where an image should be)
│   ├── ImageExpired         image_expired           its link is dead: 403, 404, 410 and the like
│   ├── ImageUnavailable     image_unavailable       it could not be reached, 5xx, or too slow
│   ├── ForbiddenAddress     forbidden_address       its URL leads where no download may go
│   ├── ImageTooLarge        image_too_large         more bytes or pixels than the limit
│   ├── ImageTruncated       image_truncated         fewer bytes than announced
│   └── NotAnImage           not_an_image            not PNG, JPEG, WebP or AVIF
├── NotificationError        (what a notification met, on its way to your application)
│   ├── ReceiverUnavailable  receiver_unavailable    it could not be reached, or did not answer in time
│   ├── ReceiverRefused      receiver_refused        it answered something else than 2xx
│   ├── ReceiverGone         receiver_gone           it answered 410: it wants no more, and none is sent again
│   └── ReceiverForbidden    receiver_forbidden      its URL leads where no notification may go
└── Unready                  unready                 the ledger or the bucket cannot take anything now
    └── TooManyWaiting       too_many_waiting        as many requests wait for jobs as may at once

Each class has a short `code`: the API's `code`, the metric's label, and what tests assert. `at_fault`
says who can mend it: request, gateway, image, archive or operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class DarkroomError(Exception):
    """Root of the tree. `str(error)` says what to do, and is safe to show to a user."""

    code: ClassVar[str] = "internal"
    at_fault: ClassVar[str] = "operator"
    status: ClassVar[int] = 500
    """The HTTP status with which the API answers it."""


class SettingsError(DarkroomError):
    """A setting is missing or wrong; the message names it."""

    code = "bad_settings"


class RequestError(DarkroomError):
    """What a caller of the API got wrong."""

    at_fault = "request"
    status = 400


class InvalidRequest(RequestError):
    """One or more fields are wrong. `faults`: `{"field": ..., "message": ...}` for each."""

    code = "invalid_request"
    status = 422

    def __init__(self, faults: Sequence[Mapping[str, str]]) -> None:
        self.faults = [dict(fault) for fault in faults]
        super().__init__("; ".join(f"{fault['field']}: {fault['message']}" for fault in self.faults))


class UnsupportedParameter(InvalidRequest):
    """The gateway or model has no such parameter, and dropping it would falsify the record."""

    code = "unsupported_parameter"


class UnknownGateway(InvalidRequest):
    """Not one of the gateways that are configured here."""

    code = "unknown_gateway"


class BodyTooLarge(RequestError):
    """More bytes than this route takes."""

    code = "body_too_large"
    status = 413


class TooSlow(RequestError):
    """The body did not come in time."""

    code = "too_slow"
    status = 408


class TooManyRequests(RequestError):
    """A token or address made more requests than it may. `retry_after_s`: until the next one."""

    code = "too_many_requests"
    status = 429

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class IdempotencyConflict(RequestError):
    """The same Idempotency-Key came with another body before."""

    code = "idempotency_conflict"
    status = 409


class NotRetryable(RequestError):
    """The job is not failed or partial, or what is missing of it cannot be had by any retry."""

    code = "not_retryable"
    status = 409


class NeedsResubmit(RequestError):
    """Only another submission could help, which the gateway may charge for; the caller must say so."""

    code = "needs_resubmit"
    status = 409


class NoSuchThing(RequestError):
    """No job or output has that id, or its job has no record yet; or no job has the id in a cursor."""

    code = "not_found"
    status = 404


class UnsatisfiableRange(RequestError):
    """The image has no bytes in the range that was asked for; it has `length` in all."""

    code = "unsatisfiable_range"
    status = 416

    def __init__(self, length: int) -> None:
        self.length = length
        super().__init__(f"The image has {length} bytes, and none in this range.")


class NoThumbnail(RequestError):
    """The image cannot be decoded within the limits; the image itself can be had as it is."""

    code = "no_thumbnail"
    at_fault = "image"
    status = 422


class Unauthorized(RequestError):
    """There was no bearer token, or one that nobody was given."""

    code = "unauthorized"
    status = 401


class Forbidden(RequestError):
    """The token is known, but its scope does not reach this far."""

    code = "forbidden"
    status = 403


class StaleForm(RequestError):
    """A change was asked for by cookie, without the form token of its session: `X-CSRF-Token`."""

    code = "stale_form"
    status = 403


class CallbackError(DarkroomError):
    """What a callback got wrong; nothing of it is kept."""

    at_fault = "gateway"
    status = 400


class BadToken(CallbackError):
    """Forged, expired, or for another gateway. `reason` tells which, for the count, never the answer."""

    code = "bad_token"
    status = 401

    def __init__(self, reason: str = "forged") -> None:
        self.reason = reason
        super().__init__("This callback URL is not valid.")


class BadSignature(CallbackError):
    """The gateway's own signature is there and does not fit the body."""

    code = "bad_signature"
    status = 401


class MalformedCallback(CallbackError):
    """Not JSON, or not this gateway's shape."""

    code = "malformed_callback"


class JobMismatch(CallbackError):
    """The body speaks of another gateway job than the one that its URL was made for."""

    code = "job_mismatch"
    status = 409


class TooManyCallbacks(CallbackError):
    """Its job has as many different callbacks as a job may have; nothing more is kept of it."""

    code = "too_many_callbacks"
    status = 429


class UnknownJob(CallbackError):
    """The token is true, but the ledger does not know its job."""

    code = "unknown_job"
    status = 404


class GatewayError(DarkroomError):
    """What a gateway answered, or did not."""

    at_fault = "gateway"
    status = 502

    def __init__(
        self, message: str, *, details: Mapping[str, Any] | None = None, request_id: str | None = None
    ) -> None:
        self.details = details
        self.request_id = request_id
        super().__init__(message)


class GatewayRefused(GatewayError):
    """The gateway will never take this request (400, 404, 413, 422); `details` are its own words."""

    code = "gateway_refused"
    at_fault = "request"


class GatewayUnauthorized(GatewayError):
    """The gateway does not accept our key, or the account may not do this (401, 403)."""

    code = "gateway_unauthorized"
    at_fault = "operator"


class OutOfCredits(GatewayError):
    """The account has too few credits (402)."""

    code = "out_of_credits"
    at_fault = "operator"


class RateLimited(GatewayError):
    """The gateway asks us to wait `retry_after_s` seconds (429)."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after_s: float, request_id: str | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message, request_id=request_id)


class GatewayUnavailable(GatewayError):
    """It could not be reached, so it certainly took nothing; or it answered 5xx."""

    code = "gateway_unavailable"


class OutcomeUnknown(GatewayError):
    """The request went out and no whole answer came back: it may have been taken."""

    code = "outcome_unknown"


class SubmittedBefore(GatewayError):
    """It knows the job's idempotency key with another body (409): an earlier try was taken after all.

    The body of a try follows from the job and the settings, so PUBLIC_URL or SECRET_KEYS changed meanwhile.
    """

    code = "submitted_before"


class UnknownGatewayJob(GatewayError):
    """The gateway does not know the job that we ask about (404 on a poll)."""

    code = "unknown_gateway_job"


class GarbledAnswer(GatewayError):
    """A success that cannot be read: not JSON, or no job id in it."""

    code = "garbled_answer"


class ImageError(DarkroomError):
    """What came, or did not, where an image should be."""

    at_fault = "image"
    status = 502


class ImageExpired(ImageError):
    """The link is dead (403, 404, 410 and every other 4xx that waiting cannot mend); a fresh one may help."""

    code = "image_expired"


class ImageUnavailable(ImageError):
    """It could not be reached, answered 429 or 5xx, or came too slowly; it may come later."""

    code = "image_unavailable"


class ForbiddenAddress(ImageError):
    """The URL leads where no download may go: not https, a private address, a host not on the list."""

    code = "forbidden_address"


class ImageTooLarge(ImageError):
    """More than DARKROOM_DOWNLOAD__MAX_BYTES or __MAX_PIXELS allow."""

    code = "image_too_large"


class ImageTruncated(ImageError):
    """Fewer bytes came than were announced, or the image ends in the middle."""

    code = "image_truncated"


class NotAnImage(ImageError):
    """The first bytes are not those of PNG, JPEG, WebP or AVIF, whatever the content type says."""

    code = "not_an_image"


class NotificationError(DarkroomError):
    """What a notification met on its way. Messages name the host alone: a path may hold a secret."""

    status = 502


class EndpointUnavailable(NotificationError):
    """It could not be reached, did not answer in time, or gave no answer that can be read."""

    code = "receiver_unavailable"


class EndpointRefused(NotificationError):
    """It answered neither 2xx nor 410. `retry_after_s`: how long it asks us to wait, if it does."""

    code = "receiver_refused"

    def __init__(self, message: str, *, retry_after_s: float = 0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class EndpointGone(NotificationError):
    """It answered 410: it wants no more, so this one is given up at once."""

    code = "receiver_gone"


class EndpointForbidden(NotificationError):
    """The URL leads where no notification may go: a private address, or over plain http to a public one."""

    code = "receiver_forbidden"


class Unready(DarkroomError):
    """The ledger or the bucket cannot take anything now; try again later."""

    code = "unready"
    status = 503


class TooManyWaiting(Unready):
    """As many requests wait for jobs as may at once; try again later."""

    code = "too_many_waiting"
