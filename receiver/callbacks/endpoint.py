"""Authenticate, verify and record callbacks: the webhook endpoint. Returns 200 only for what is on disk."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import structlog
import uuid_utils
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from receiver import errors
from receiver.callbacks.encodings import decoded
from receiver.callbacks.intake import Intake
from receiver.callbacks.tokens import CallbackClaims, CallbackTokens
from receiver.gateways.base import Gateway
from receiver.http.limits import LARGE, LargeBodies, Limits, read_body
from receiver.http.routing import Answer, Body, Operation
from receiver.redaction import Redactor
from receiver.schemas.problem import CallbackAccepted, CallbackReady
from receiver.telemetry.metrics import Metrics
from storage.ledger.deliveries import MAX_DELIVERIES, DeliveryResult, NewDelivery
from storage.models import Clock, Delivery, Verdict

log = structlog.get_logger("darkroom.callbacks")

KEPT_HEADERS = ("content-type", "content-encoding", "user-agent", "x-request-id")
KEPT_PREFIXES = ("x-webhook-", "webhook-")

CALLBACK = Operation(
    # `token:path`, so that even a mangled token gets the same response as every bad one.
    "POST /callbacks/{gateway}/{token:path}",
    "take_callback",
    scope=None,
    path={"gateway": str, "token": str},
    body=Body(Any, "The gateway's report on the job, in its own format."),
    answers={200: Answer(CallbackAccepted, "It is on disk.")},
    errors=(
        errors.BadToken,
        errors.BadSignature,
        errors.MalformedCallback,
        errors.JobMismatch,
        errors.TooManyCallbacks,
        errors.TooManyRequests,
        errors.UnknownJob,
        errors.Unready,
        errors.LedgerIncomplete,
    ),
)

PROBE = Operation(
    "GET /callbacks/{gateway}/{token:path}",
    "probe_callback",
    scope=None,
    path={"gateway": str, "token": str},
    answers={200: Answer(CallbackReady, "The URL is valid.")},
    errors=(errors.BadToken, errors.TooManyRequests),
)


class Received(NamedTuple):
    """The body of a callback."""

    sent: bytes
    """As it was sent."""
    plain: bytes
    """Without its `Content-Encoding`."""


class Callbacks:
    """Serves `/callbacks/{gateway}/{token}`, the only route that must be public."""

    def __init__(
        self,
        intake: Intake,
        gateways: Mapping[str, Gateway],
        tokens: CallbackTokens,
        *,
        max_bytes: int,
        limits: Limits,
        redactor: Redactor,
        clock: Clock,
        metrics: Metrics,
        accept_incomplete: bool = False,
    ) -> None:
        """`accept_incomplete`: callbacks of jobs that a lost ledger knew are refused for good."""
        self._accept_incomplete = accept_incomplete
        self._intake = intake
        self._gateways = gateways
        self._tokens = tokens
        self._max_bytes = max_bytes
        self._limits = limits
        self._large = LargeBodies()
        self._redactor = redactor
        self._clock = clock
        self._metrics = metrics

    @CALLBACK
    async def receive(self, request: Request) -> Response:
        """Verify a callback and record it."""
        # The order of the checks is cheapest first.
        name, began, outcome = request.path_params["gateway"], perf_counter(), "internal"
        try:
            # Before the body is read, so that a stranger cannot make us keep one in memory.
            claims = self._authenticate(request)
            async with AsyncExitStack() as held:
                body = await self._body(request, claims.job_id, held)
                # A large body takes long enough to read that other requests would notice.
                verify = partial(self._verified, name, claims, request.headers, body)
                delivery = await run_in_threadpool(verify) if len(body.plain) > LARGE else verify()
                result = await self._intake.take(delivery)
            _raise_unless_recorded(result, accept_incomplete=self._accept_incomplete)
            outcome = result.value
        except errors.DarkroomError as error:
            outcome = error.code
            self._log_refusal(name, error)
            raise
        except ClientDisconnect:
            outcome = "disconnected"
            raise
        finally:
            self._metrics.count("darkroom_callbacks_total", gateway=name, outcome=outcome)
        self._metrics.observe("darkroom_callback_seconds", perf_counter() - began, gateway=name)
        log.info("callback", job=claims.job_id, gateway=name, result=result)
        # Exactly 200, because some senders take any other 2xx for a failure.
        return JSONResponse({"status": result})

    @PROBE
    async def probe(self, request: Request) -> Response:
        """Return 200 if the URL is valid: some senders ask before they send. Nothing is recorded."""
        try:
            self._authenticate(request)
        except errors.BadToken as error:
            self._log_refusal(request.path_params["gateway"], error)
            raise
        return JSONResponse({"status": "ready"})

    def _log_refusal(self, name: str, error: errors.DarkroomError) -> None:
        if isinstance(error, errors.TooManyRequests):
            return
        reason = error.reason if isinstance(error, errors.BadToken) else None
        log.warning("callback refused", gateway=name[:64], code=error.code, reason=reason)
        if reason is not None:
            self._metrics.count("darkroom_callbacks_bad_token_total", gateway=name, reason=reason)

    def _authenticate(self, request: Request) -> CallbackClaims:
        # Some frameworks put a slash behind every URL.
        token = request.path_params["token"].rstrip("/")
        try:
            claims = self._claims(request.path_params["gateway"], token)
        except errors.BadToken:
            self._limits.stranger(request)
            raise
        self._limits.callback(claims.job_id)
        return claims

    def _claims(self, name: str, token: str) -> CallbackClaims:
        claims = self._tokens.read(token, name)
        if name not in self._gateways:
            raise errors.BadToken("foreign")
        return claims

    async def _body(self, request: Request, job_id: str, held: AsyncExitStack) -> Received:
        encodings = request.headers.get("content-encoding")
        large = partial(held.enter_async_context, self._large.one_of(job_id))
        try:
            body = await read_body(
                request, self._max_bytes, within_s=self._limits.body_timeout_s, large=large
            )
            plain = body if encodings is None else await self._decoded(body, encodings, large)
        except errors.BodyTooLarge:
            self._limits.callback_body(job_id, self._max_bytes)
            raise
        self._limits.callback_body(job_id, len(plain))
        return Received(body, plain)

    async def _decoded(self, body: bytes, encodings: str, large: Callable[[], Awaitable[None]]) -> bytes:
        if len(body) <= LARGE:
            try:
                return decoded(body, encodings, min(LARGE, self._max_bytes))
            except errors.BodyTooLarge:
                await large()
        return await run_in_threadpool(decoded, body, encodings, self._max_bytes)

    def _verified(
        self, name: str, claims: CallbackClaims, headers: Mapping[str, str], received: Received
    ) -> NewDelivery:
        gateway, body = self._gateways[name], received.plain
        signature = _signature(gateway, headers, received)
        completion = gateway.read_callback(body)
        delivery = Delivery(
            id=str(uuid_utils.uuid7()),
            job_id=claims.job_id,
            gateway=name,
            received_at=self._clock(),
            headers=self._kept(headers),
            body=self._redactor.body(body),
            body_sha256=hashlib.sha256(body).hexdigest(),
            signature=signature,
        )
        return NewDelivery(delivery, completion.gateway_job_id, claims.submission)

    def _kept(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {
            name: self._redactor.text(value[:512])
            for name, value in headers.items()
            if name in KEPT_HEADERS or (name.startswith(KEPT_PREFIXES) and not name.endswith("secret"))
        }


def _signature(gateway: Gateway, headers: Mapping[str, str], body: Received) -> Verdict:
    """Verify the signature, which may be over the body as it was sent, or over what it was before."""
    try:
        return gateway.verify(headers, body.sent)
    except errors.BadSignature:
        if body.plain == body.sent:
            raise
        return gateway.verify(headers, body.plain)


def _raise_unless_recorded(result: DeliveryResult, *, accept_incomplete: bool) -> None:
    if result is DeliveryResult.MISMATCH:
        raise errors.JobMismatch("The body is about another job than this URL was made for.")
    if result is DeliveryResult.LATER_JOB and not accept_incomplete:
        # Not 404, after which the gateway would give up: the ledger may be restored until it comes again.
        raise errors.LedgerIncomplete("The ledger lacks the job of this URL, which was signed here.")
    if result in {DeliveryResult.UNKNOWN_JOB, DeliveryResult.LATER_JOB}:
        raise errors.UnknownJob("The ledger does not know the job of this URL.")
    if result is DeliveryResult.TOO_MANY:
        raise errors.TooManyCallbacks(f"This job has {MAX_DELIVERIES} different callbacks already.")
