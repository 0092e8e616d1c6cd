"""Every error of the service, as one tree.

DarkroomError
├── SettingsError            bad_settings            a setting is missing or invalid; nothing starts
├── RequestError             (the API request is wrong)
│   ├── InvalidRequest       invalid_request         one or more fields are invalid, each named
│   ├── UnsupportedParameter unsupported_parameter   the gateway or model does not support the parameter
│   ├── UnknownGateway       unknown_gateway         the gateway is not configured here
│   ├── UnknownModel         unknown_model           the model is another gateway's, or mistyped
│   ├── BodyTooLarge         body_too_large          the body is over the limit
│   ├── TooSlow              too_slow                the body did not arrive in time
│   ├── TooManyRequests      too_many_requests       over the rate limit of this token or address
│   ├── IdempotencyConflict  idempotency_conflict    the Idempotency-Key was used for another request
│   ├── NotRetryable         not_retryable           the job has not failed, or no retry can help
│   ├── NotCancellable       not_cancellable         the job is finished, or its gateway may have it already
│   ├── NeedsResubmit        needs_resubmit          only a new submission can help, which may cost credits
│   ├── NoSuchThing          not_found               no such job, output or record
│   ├── AmbiguousId          ambiguous_id            several ids have this beginning
│   ├── UnsatisfiableRange   unsatisfiable_range     the image has no bytes in this range
│   ├── NoThumbnail          no_thumbnail            the image cannot be decoded within the limits
│   ├── ImageMissing         image_missing           the bucket lacks the archived image, or has other bytes
│   ├── RecordMissing        record_missing          the bucket lacks the record of the job
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
│   ├── GarbledAnswer        garbled_answer          its response, or a part of it, cannot be read
│   ├── NoImages             no_images               it says that the job succeeded, but names no image
│   └── ResultExpired        result_expired          the job succeeded, but the gateway has deleted its images
├── ImageError               (the image could not be downloaded or stored)
│   ├── ImageExpired         image_expired           its link is dead: 404 or 410
│   │   └── LinkRefused      link_refused            its host refuses the link: 403 and other 4xx
│   ├── ImageUnavailable     image_unavailable       it could not be reached, returned 5xx, or was too slow
│   ├── ForbiddenAddress     forbidden_address       its URL or its address is not allowed
│   │   └── UnknownImageHost unknown_image_host      its host is not on the gateway's list of image hosts
│   ├── ImageTooLarge        image_too_large         it has more bytes or pixels than the limit
│   ├── ImageTruncated       image_truncated         it has fewer bytes than announced
│   ├── NotAnImage           not_an_image            it is no image of a kind that is archived
│   └── ImageNotStored       (the bucket does not have the image)
│       ├── ImageRefused     image_refused           the bucket refuses this image, and stores others
│       ├── ArchiveConflict  archive_conflict        other bytes are under the key of this image or record
│       └── ArchiveCorrupt   archive_corrupt         what was read back is not what was stored
├── NotificationError        (the notification was not delivered)
│   ├── EndpointUnavailable  receiver_unavailable    the endpoint could not be reached, or timed out
│   ├── EndpointRefused      receiver_refused        it returned neither 2xx nor 410
│   ├── EndpointGone         receiver_gone           it returned 410, so this notification is not retried
│   └── EndpointForbidden    receiver_forbidden      its URL or address is not allowed
└── Unready                  unready                 the ledger or the bucket cannot be used now
    ├── LedgerIncomplete     ledger_incomplete       the bucket has records of jobs that the ledger lacks
    └── TooManyWaiting       too_many_waiting        too many requests wait for jobs at once

Each class has a short `code`: the API's `code`, the metric's label, and what tests assert. `at_fault` says
where to fix it: request, gateway, image, archive or operator.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

BEARER = {"www-authenticate": "Bearer"}


class DarkroomError(Exception):
    """Root of the tree. `str(error)` says what to do, and may be shown to a user."""

    code: ClassVar[str] = "internal"
    at_fault: ClassVar[str] = "operator"
    status: ClassVar[int] = 500
    """The HTTP status of the API's response."""
    headers: Mapping[str, str] = {}
    """The headers of that response."""

    def __init_subclass__(cls, **attributes: Any) -> None:
        """Take these four from the class's line; without one, the parent's holds."""
        for name, value in attributes.items():
            setattr(cls, name, value)


class SettingsError(DarkroomError, code="bad_settings"):
    """A setting is missing or invalid; the message names it."""


class RequestError(DarkroomError, status=400, at_fault="request"):
    """The API request is wrong."""


class InvalidRequest(RequestError, code="invalid_request", status=422):
    """One or more fields are invalid. `faults`: `{"field": ..., "message": ...}` for each."""

    def __init__(self, faults: Sequence[Mapping[str, str]]) -> None:
        self.faults = [dict(fault) for fault in faults]
        super().__init__("; ".join(f"{fault['field']}: {fault['message']}" for fault in self.faults))


class UnsupportedParameter(InvalidRequest, code="unsupported_parameter"):
    """The gateway or model does not support a parameter, and dropping it would falsify the record."""


class UnknownGateway(InvalidRequest, code="unknown_gateway"):
    """The gateway is not configured here."""


class UnknownModel(InvalidRequest, code="unknown_model"):
    """The model is one that only another gateway lists, or a listed one with a typing error.

    A name that is on no list and like none is accepted, with a warning on the job.
    """


class BodyTooLarge(RequestError, code="body_too_large", status=413):
    """The body is over the limit of its route."""


class TooSlow(RequestError, code="too_slow", status=408, headers={"connection": "close"}):
    """The body did not arrive in time."""


class TooManyRequests(RequestError, code="too_many_requests", status=429):
    """A token or address is over its rate limit. `retry_after_s`: seconds until the next request."""

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        self.headers = {"retry-after": str(retry_after_s)}
        super().__init__(message)


class IdempotencyConflict(RequestError, code="idempotency_conflict", status=409):
    """The Idempotency-Key was used for another request."""


class NotRetryable(RequestError, code="not_retryable", status=409):
    """The job is not failed, partial or cancelled, or no retry can get what is missing."""


class NotCancellable(RequestError, code="not_cancellable", status=409):
    """The job is finished, or its gateway has it already, or may have it."""


class NeedsResubmit(RequestError, code="needs_resubmit", status=409):
    """Only a new submission can help, which may cost credits; the caller must ask for it."""


class NoSuchThing(RequestError, code="not_found", status=404):
    """No job, output or cursor has this id, or the job has no record yet."""


class AmbiguousId(RequestError, code="ambiguous_id", status=409):
    """Several ids have this beginning; give more of it."""


class UnsatisfiableRange(RequestError, code="unsatisfiable_range", status=416):
    """The image has no bytes in the requested range. `length`: bytes of the whole image."""

    def __init__(self, length: int) -> None:
        self.headers = {"content-range": f"bytes */{length}"}
        super().__init__(f"The image has {length} bytes and none in this range.")


class NoThumbnail(RequestError, code="no_thumbnail", status=422, at_fault="image"):
    """The image cannot be decoded within the limits; the image itself can be downloaded."""


class MissingFromBucket(RequestError, status=410, at_fault="archive"):
    """The bucket certainly lacks an object that was archived. `facts`: what is known of it."""

    def __init__(self, message: str, *, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        super().__init__(message)


class ImageMissing(MissingFromBucket, code="image_missing"):
    """An archived image is missing, or has another length: `found` bytes, or None if it is not there."""

    def __init__(self, message: str, *, facts: Mapping[str, Any], found: int | None) -> None:
        self.found = found
        super().__init__(message, facts=facts)


class RecordMissing(MissingFromBucket, code="record_missing"):
    """The record of an archived job is missing."""


class Unauthorized(RequestError, code="unauthorized", status=401, headers=BEARER):
    """There is no valid token or session."""


class Forbidden(RequestError, code="forbidden", status=403):
    """The scope of the token does not allow this."""


class StaleForm(RequestError, code="stale_form", status=403):
    """A change was requested by cookie without the CSRF token of its session, `X-CSRF-Token`."""


class CallbackError(DarkroomError, status=400, at_fault="gateway"):
    """The callback is wrong; it is not stored."""


class BadToken(CallbackError, code="bad_token", status=401, headers=BEARER):
    """The token is forged, expired, missing or for another gateway. `reason` is counted, never returned."""

    def __init__(self, reason: str = "forged") -> None:
        self.reason = reason
        super().__init__("This callback URL is not valid.")


class BadSignature(CallbackError, code="bad_signature", status=401, headers=BEARER):
    """The gateway's signature does not match the body."""


class MalformedCallback(CallbackError, code="malformed_callback"):
    """The body is not JSON, or not in this gateway's format."""


class JobMismatch(CallbackError, code="job_mismatch", status=409):
    """The body is about another gateway job than the one that its URL was made for."""


class TooManyCallbacks(CallbackError, code="too_many_callbacks", status=429):
    """The job has as many different callbacks as a job may have; no more are stored."""


class UnknownJob(CallbackError, code="unknown_job", status=404):
    """The token is valid, but its job is not in the ledger."""


class GatewayError(DarkroomError, status=502, at_fault="gateway"):
    """The gateway refused, or did not respond."""

    def __init__(
        self, message: str, *, details: Mapping[str, Any] | None = None, request_id: str | None = None
    ) -> None:
        self.details = details
        self.request_id = request_id
        super().__init__(message)


class GatewayRefused(GatewayError, code="gateway_refused", at_fault="request"):
    """The gateway refused this request for good (400, 404, 413, 422). `details`: its own words."""


class GatewayUnauthorized(GatewayError, code="gateway_unauthorized", at_fault="operator"):
    """The gateway does not accept the API key, or the account may not do this (401, 403)."""


class OutOfCredits(GatewayError, code="out_of_credits", at_fault="operator"):
    """The account has too few credits (402)."""


class RateLimited(GatewayError, code="rate_limited"):
    """The gateway asks to slow down, for `retry_after_s` seconds (429)."""

    def __init__(self, message: str, *, retry_after_s: float, request_id: str | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message, request_id=request_id)


class GatewayUnavailable(GatewayError, code="gateway_unavailable"):
    """The gateway could not be reached, so it accepted nothing; or it returned 5xx."""


class OutcomeUnknown(GatewayError, code="outcome_unknown"):
    """The request was sent and its response was lost: it may have been accepted."""


class SubmittedBefore(GatewayError, code="submitted_before"):
    """The gateway knows the job's idempotency key with another body (409): it accepted an earlier try.

    The body of a try follows from the job and the settings, so PUBLIC_URL or SECRET_KEYS changed meanwhile.
    """


class UnknownGatewayJob(GatewayError, code="unknown_gateway_job"):
    """The gateway does not know the job (404 on a poll)."""


class GarbledAnswer(GatewayError, code="garbled_answer"):
    """The gateway's response cannot be read: not JSON, without a job id, or with an unknown status."""


class NoImages(GatewayError, code="no_images"):
    """The gateway says that the job succeeded, but its response names no image."""


class ResultExpired(GatewayError, code="result_expired"):
    """The job succeeded, but the gateway has deleted its images; a resubmission makes new ones."""


class ImageError(DarkroomError, status=502, at_fault="image"):
    """The image could not be downloaded or stored."""


class ImageExpired(ImageError, code="image_expired"):
    """The link is dead (404, 410); a fresh one may work."""


class LinkRefused(ImageExpired, code="link_refused"):
    """The image host refuses the link (403 and every other 4xx that waiting does not fix).

    So do hosts with links that have expired, but also those that do not let this network in.
    """


class ImageUnavailable(ImageError, code="image_unavailable"):
    """The image host could not be reached, returned 429 or 5xx, or was too slow; it is retried."""


class ForbiddenAddress(ImageError, code="forbidden_address"):
    """The SSRF rules forbid the URL: it is no plain https URL, or leads to a private address."""


class UnknownImageHost(ForbiddenAddress, code="unknown_image_host", at_fault="operator"):
    """The host of the image is not on the allow-list of its gateway."""


class ImageTooLarge(ImageError, code="image_too_large"):
    """More than DARKROOM_DOWNLOAD__MAX_BYTES or __MAX_PIXELS allow."""


class ImageTruncated(ImageError, code="image_truncated"):
    """The image has fewer bytes than announced, or ends in the middle."""


class NotAnImage(ImageError, code="not_an_image"):
    """The first bytes are not those of an image that is archived here, whatever the content type says.

    GIF and SVG are accepted where the job's model or parameters name them.
    """


class ImageNotStored(ImageError, at_fault="archive"):
    """The bucket does not have the image that was downloaded."""


class ImageRefused(ImageNotStored, code="image_refused"):
    """The bucket refuses this image, for its key or its size, and stores other objects."""


class ArchiveConflict(ImageNotStored, code="archive_conflict"):
    """Other bytes are under the key of this image or record; nothing is written over."""


class ArchiveCorrupt(ImageNotStored, code="archive_corrupt"):
    """What was read back is not what was stored."""


class NotificationError(DarkroomError, status=502):
    """The notification was not delivered. Messages name only the host: a path may hold a secret."""


class EndpointUnavailable(NotificationError, code="receiver_unavailable"):
    """The endpoint could not be reached, timed out, or returned a response that cannot be read."""


class EndpointRefused(NotificationError, code="receiver_refused"):
    """The endpoint returned neither 2xx nor 410. `retry_after_s`: how long it asks to wait, if it does."""

    def __init__(self, message: str, *, retry_after_s: float = 0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class EndpointGone(NotificationError, code="receiver_gone"):
    """The endpoint returned 410, so this notification is not retried."""


class EndpointForbidden(NotificationError, code="receiver_forbidden"):
    """The SSRF rules forbid the URL: a private address, or plain http to a public one."""


class Unready(DarkroomError, code="unready", status=503, headers={"retry-after": "5"}):
    """The ledger or the bucket cannot be used now; try again later."""


class LedgerIncomplete(Unready, code="ledger_incomplete"):
    """The bucket has records of jobs that the ledger lacks; nothing is submitted before it is restored."""


class TooManyWaiting(Unready, code="too_many_waiting"):
    """Too many requests wait for jobs at once; try again later."""


MENDABLE = frozenset(
    {
        GarbledAnswer.code,
        NoImages.code,
        LinkRefused.code,
        ForbiddenAddress.code,
        UnknownImageHost.code,
        ImageTruncated.code,
        NotAnImage.code,
        ImageRefused.code,
        ArchiveConflict.code,
        ArchiveCorrupt.code,
        "record_refused",
    }
)
"""Codes of unfinished jobs that go on once an operator, the gateway or an image host mends the cause.

What is down as a whole is not among them: its circuit breaker tells of it.
"""
