"""Every error of the service, as one tree.

DarkroomError
├── SettingsError            bad_settings            a setting is missing or invalid; nothing starts
├── RequestError             (the API request is wrong)
│   ├── InvalidRequest       invalid_request         one or more fields are invalid, each named
│   ├── UnsupportedParameter unsupported_parameter   the gateway or model does not support the parameter
│   ├── UnknownGateway       unknown_gateway         the gateway is not configured here
│   ├── BodyTooLarge         body_too_large          the body is over the limit
│   ├── TooSlow              too_slow                the body did not arrive in time
│   ├── TooManyRequests      too_many_requests       over the rate limit of this token or address
│   ├── IdempotencyConflict  idempotency_conflict    the Idempotency-Key was used for another request
│   ├── NotRetryable         not_retryable           the job is not failed or partial, or a retry cannot help
│   ├── NeedsResubmit        needs_resubmit          only a new submission can help, which may cost credits
│   ├── NoSuchThing          not_found               no such job, output or record
│   ├── UnsatisfiableRange   unsatisfiable_range     the image has no bytes in this range
│   ├── NoThumbnail          no_thumbnail            the image cannot be decoded within the limits
│   ├── Unauthorized         unauthorized            no valid token or session
│   ├── Forbidden            forbidden               the scope of the token does not allow this
│   └── StaleForm            stale_form              the form belongs to another session
├── CallbackError            (the callback is wrong; it is not stored)
│   ├── BadToken             bad_token               forged, expired, for another gateway, or missing
│   ├── BadSignature         bad_signature           the gateway's signature does not match the body
│   ├── MalformedCallback    malformed_callback      not JSON, or not in this gateway's format
│   ├── JobMismatch          job_mismatch            the body is about another job than the URL
│   ├── TooManyCallbacks     too_many_callbacks      the job has as many callbacks as a job may have
│   └── UnknownJob           unknown_job             the token is valid, but its job is not in the ledger
├── GatewayError             (the gateway refused, or did not respond)
│   ├── GatewayRefused       gateway_refused         it refused this request for good
│   ├── GatewayUnauthorized  gateway_unauthorized    it does not accept the API key
│   ├── OutOfCredits         out_of_credits          the account has too few credits
│   ├── RateLimited          rate_limited            it asks to slow down
│   ├── GatewayUnavailable   gateway_unavailable     it could not be reached, or returned 5xx
│   ├── OutcomeUnknown       outcome_unknown         sent, but its response was lost
│   ├── SubmittedBefore      submitted_before        it accepted an earlier try of this job with another body
│   ├── UnknownGatewayJob    unknown_gateway_job     it does not know the job
│   └── GarbledAnswer        garbled_answer          its response cannot be read
├── ImageError               (the image could not be downloaded)
│   ├── ImageExpired         image_expired           its link is dead: 403, 404, 410 and the like
│   ├── ImageUnavailable     image_unavailable       it could not be reached, returned 5xx, or was too slow
│   ├── ForbiddenAddress     forbidden_address       its URL is not https, or its host or address not allowed
│   ├── ImageTooLarge        image_too_large         it has more bytes or pixels than the limit
│   ├── ImageTruncated       image_truncated         it has fewer bytes than announced
│   └── NotAnImage           not_an_image            it is not PNG, JPEG, WebP or AVIF
├── NotificationError        (the notification was not delivered)
│   ├── EndpointUnavailable  receiver_unavailable    the endpoint could not be reached, or timed out
│   ├── EndpointRefused      receiver_refused        it returned neither 2xx nor 410
│   ├── EndpointGone         receiver_gone           it returned 410, so this notification is not retried
│   └── EndpointForbidden    receiver_forbidden      its URL or address is not allowed
└── Unready                  unready                 the ledger or the bucket cannot be used now
    └── TooManyWaiting       too_many_waiting        too many requests wait for jobs at once

Each class has a short `code`: the API's `code`, the metric's label, and what tests assert. `at_fault` says
where to fix it: request, gateway, image, archive or operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class DarkroomError(Exception):
    """Root of the tree. `str(error)` says what to do, and may be shown to a user."""

    code: ClassVar[str] = "internal"
    at_fault: ClassVar[str] = "operator"
    status: ClassVar[int] = 500
    """The HTTP status of the API's response."""


class SettingsError(DarkroomError):
    """A setting is missing or invalid; the message names it."""

    code = "bad_settings"


class RequestError(DarkroomError):
    """The API request is wrong."""

    at_fault = "request"
    status = 400


class InvalidRequest(RequestError):
    """One or more fields are invalid. `faults`: `{"field": ..., "message": ...}` for each."""

    code = "invalid_request"
    status = 422

    def __init__(self, faults: Sequence[Mapping[str, str]]) -> None:
        self.faults = [dict(fault) for fault in faults]
        super().__init__("; ".join(f"{fault['field']}: {fault['message']}" for fault in self.faults))


class UnsupportedParameter(InvalidRequest):
    """The gateway or model does not support a parameter, and dropping it would falsify the record."""

    code = "unsupported_parameter"


class UnknownGateway(InvalidRequest):
    """The gateway is not configured here."""

    code = "unknown_gateway"


class BodyTooLarge(RequestError):
    """The body is over the limit of its route."""

    code = "body_too_large"
    status = 413


class TooSlow(RequestError):
    """The body did not arrive in time."""

    code = "too_slow"
    status = 408


class TooManyRequests(RequestError):
    """A token or address is over its rate limit. `retry_after_s`: seconds until the next request."""

    code = "too_many_requests"
    status = 429

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class IdempotencyConflict(RequestError):
    """The Idempotency-Key was used for another request."""

    code = "idempotency_conflict"
    status = 409


class NotRetryable(RequestError):
    """The job is not failed or partial, or no retry can get what is missing."""

    code = "not_retryable"
    status = 409


class NeedsResubmit(RequestError):
    """Only a new submission can help, which may cost credits; the caller must ask for it."""

    code = "needs_resubmit"
    status = 409


class NoSuchThing(RequestError):
    """No job, output or cursor has this id, or the job has no record yet."""

    code = "not_found"
    status = 404


class UnsatisfiableRange(RequestError):
    """The image has no bytes in the requested range. `length`: bytes of the whole image."""

    code = "unsatisfiable_range"
    status = 416

    def __init__(self, length: int) -> None:
        self.length = length
        super().__init__(f"The image has {length} bytes and none in this range.")


class NoThumbnail(RequestError):
    """The image cannot be decoded within the limits; the image itself can be downloaded."""

    code = "no_thumbnail"
    at_fault = "image"
    status = 422


class Unauthorized(RequestError):
    """There is no valid token or session."""

    code = "unauthorized"
    status = 401


class Forbidden(RequestError):
    """The scope of the token does not allow this."""

    code = "forbidden"
    status = 403


class StaleForm(RequestError):
    """A change was requested by cookie without the CSRF token of its session, `X-CSRF-Token`."""

    code = "stale_form"
    status = 403


class CallbackError(DarkroomError):
    """The callback is wrong; it is not stored."""

    at_fault = "gateway"
    status = 400


class BadToken(CallbackError):
    """The token is forged, expired, missing or for another gateway. `reason` is counted, never returned."""

    code = "bad_token"
    status = 401

    def __init__(self, reason: str = "forged") -> None:
        self.reason = reason
        super().__init__("This callback URL is not valid.")


class BadSignature(CallbackError):
    """The gateway's signature does not match the body."""

    code = "bad_signature"
    status = 401


class MalformedCallback(CallbackError):
    """The body is not JSON, or not in this gateway's format."""

    code = "malformed_callback"


class JobMismatch(CallbackError):
    """The body is about another gateway job than the one that its URL was made for."""

    code = "job_mismatch"
    status = 409


class TooManyCallbacks(CallbackError):
    """The job has as many different callbacks as a job may have; no more are stored."""

    code = "too_many_callbacks"
    status = 429


class UnknownJob(CallbackError):
    """The token is valid, but its job is not in the ledger."""

    code = "unknown_job"
    status = 404


class GatewayError(DarkroomError):
    """The gateway refused, or did not respond."""

    at_fault = "gateway"
    status = 502

    def __init__(
        self, message: str, *, details: Mapping[str, Any] | None = None, request_id: str | None = None
    ) -> None:
        self.details = details
        self.request_id = request_id
        super().__init__(message)


class GatewayRefused(GatewayError):
    """The gateway refused this request for good (400, 404, 413, 422). `details`: its own words."""

    code = "gateway_refused"
    at_fault = "request"


class GatewayUnauthorized(GatewayError):
    """The gateway does not accept the API key, or the account may not do this (401, 403)."""

    code = "gateway_unauthorized"
    at_fault = "operator"


class OutOfCredits(GatewayError):
    """The account has too few credits (402)."""

    code = "out_of_credits"
    at_fault = "operator"


class RateLimited(GatewayError):
    """The gateway asks to slow down, for `retry_after_s` seconds (429)."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after_s: float, request_id: str | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message, request_id=request_id)


class GatewayUnavailable(GatewayError):
    """The gateway could not be reached, so it accepted nothing; or it returned 5xx."""

    code = "gateway_unavailable"


class OutcomeUnknown(GatewayError):
    """The request was sent and its response was lost: it may have been accepted."""

    code = "outcome_unknown"


class SubmittedBefore(GatewayError):
    """The gateway knows the job's idempotency key with another body (409): it accepted an earlier try.

    The body of a try follows from the job and the settings, so PUBLIC_URL or SECRET_KEYS changed meanwhile.
    """

    code = "submitted_before"


class UnknownGatewayJob(GatewayError):
    """The gateway does not know the job (404 on a poll)."""

    code = "unknown_gateway_job"


class GarbledAnswer(GatewayError):
    """The gateway's response cannot be read: not JSON, or without a job id."""

    code = "garbled_answer"


class ImageError(DarkroomError):
    """The image could not be downloaded."""

    at_fault = "image"
    status = 502


class ImageExpired(ImageError):
    """The link is dead (403, 404, 410 and every 4xx that waiting does not fix); a fresh one may work."""

    code = "image_expired"


class ImageUnavailable(ImageError):
    """The image host could not be reached, returned 429 or 5xx, or was too slow; it is retried."""

    code = "image_unavailable"


class ForbiddenAddress(ImageError):
    """The SSRF rules forbid the URL: not https, a private address, or a host not on the allow-list."""

    code = "forbidden_address"


class ImageTooLarge(ImageError):
    """More than DARKROOM_DOWNLOAD__MAX_BYTES or __MAX_PIXELS allow."""

    code = "image_too_large"


class ImageTruncated(ImageError):
    """The image has fewer bytes than announced, or ends in the middle."""

    code = "image_truncated"


class NotAnImage(ImageError):
    """The first bytes are not those of PNG, JPEG, WebP or AVIF, whatever the content type says."""

    code = "not_an_image"


class NotificationError(DarkroomError):
    """The notification was not delivered. Messages name only the host: a path may hold a secret."""

    status = 502


class EndpointUnavailable(NotificationError):
    """The endpoint could not be reached, timed out, or returned a response that cannot be read."""

    code = "receiver_unavailable"


class EndpointRefused(NotificationError):
    """The endpoint returned neither 2xx nor 410. `retry_after_s`: how long it asks to wait, if it does."""

    code = "receiver_refused"

    def __init__(self, message: str, *, retry_after_s: float = 0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class EndpointGone(NotificationError):
    """The endpoint returned 410, so this notification is not retried."""

    code = "receiver_gone"


class EndpointForbidden(NotificationError):
    """The SSRF rules forbid the URL: a private address, or plain http to a public one."""

    code = "receiver_forbidden"


class Unready(DarkroomError):
    """The ledger or the bucket cannot be used now; try again later."""

    code = "unready"
    status = 503


class TooManyWaiting(Unready):
    """Too many requests wait for jobs at once; try again later."""

    code = "too_many_waiting"
