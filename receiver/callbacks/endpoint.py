"""Authenticate, verify and record callbacks: the webhook endpoint. Returns 200 only for what is on disk."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

import orjson
import uuid_utils
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from receiver import errors
from receiver.callbacks.encodings import decoded
from receiver.callbacks.intake import Intake
from receiver.callbacks.tokens import CallbackClaims, CallbackTokens
from receiver.gateways.base import Gateway
from receiver.http.limits import LARGE, LargeBodies, Limits, read_body
from receiver.http.middleware import problem_of, shown_path
from receiver.http.routing import Answer, Body, Operation
from receiver.redaction import Redactor
from receiver.schemas.problem import CallbackAccepted, CallbackReady
from receiver.telemetry.metrics import Metrics
from storage.errors import StorageError
from storage.ledger.deliveries import MAX_DELIVERIES, DeliveryResult, NewDelivery
from storage.models import Clock, Delivery, Verdict

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
    ahead=True,
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


_BODIES = {
    result.value: orjson.dumps({"status": result.value})
    for result in (DeliveryResult.ACCEPTED, DeliveryResult.DUPLICATE)
}
_HEADERS = {
    status: [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    for status, body in _BODIES.items()
}


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
    async def receive(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Verify a callback and record it."""
        name, began, outcome = scope["path_params"]["gateway"], perf_counter(), "internal"
        try:
            outcome = (await self._recorded(name, scope, receive)).value
            self._metrics.observe("darkroom_callback_seconds", perf_counter() - began, gateway=name)
        except (errors.DarkroomError, StorageError) as error:
            if isinstance(error, errors.DarkroomError):
                outcome = error.code
                self._note_refusal(scope, error)
            await problem_of(error)(scope, receive, send)
            return
        except ClientDisconnect:
            outcome = "disconnected"
            raise
        finally:
            self._metrics.count("darkroom_callbacks_total", gateway=name, outcome=outcome)
        # Exactly 200, because some senders take any other 2xx for a failure.
        await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS[outcome]]})
        await send({"type": "http.response.body", "body": _BODIES[outcome]})

    async def _recorded(self, name: str, scope: Scope, receive: Receive) -> DeliveryResult:
        """Return what became of a callback once that is durable; raise the error that fits a refusal."""
        # The order of the checks is cheapest first. The token's is before the body is read, so that a
        # stranger cannot make us keep one in memory.
        claims = self._authenticate(scope)
        headers = _headers(scope)
        async with AsyncExitStack() as held:
            body = await self._body(headers, receive, claims.job_id, held)
            if len(body.plain) <= LARGE:
                delivery = self._verified(name, claims, headers, body)
            else:
                # It takes long enough to read that other requests would notice.
                delivery = await run_in_threadpool(self._verified, name, claims, headers, body)
            result = await self._intake.take(delivery)
        _raise_unless_recorded(result, accept_incomplete=self._accept_incomplete)
        line = {"event": "callback", "job": claims.job_id, "gateway": name, "result": result.value}
        scope["state"]["line"] = {**line, "path": f"/callbacks/{name}/[token]"}
        return result

    @PROBE
    async def probe(self, request: Request) -> Response:
        """Return 200 if the URL is valid: some senders ask before they send. Nothing is recorded."""
        try:
            self._authenticate(request.scope)
        except errors.BadToken as error:
            self._note_refusal(request.scope, error)
            raise
        return JSONResponse({"status": "ready"})

    def _note_refusal(self, scope: Scope, error: errors.DarkroomError) -> None:
        if isinstance(error, errors.TooManyRequests):
            return
        name = scope["path_params"]["gateway"]
        reason = error.reason if isinstance(error, errors.BadToken) else None
        line = {"level": "warning", "event": "callback refused", "gateway": name[:64]}
        scope["state"]["line"] = {
            **line,
            "code": error.code,
            "reason": reason,
            "path": shown_path(scope["path"]),
        }
        if reason is not None:
            self._metrics.count("darkroom_callbacks_bad_token_total", gateway=name, reason=reason)

    def _authenticate(self, scope: Scope) -> CallbackClaims:
        given = scope["path_params"]
        try:
            # Some frameworks put a slash behind every URL.
            claims = self._claims(given["gateway"], given["token"].rstrip("/"))
        except errors.BadToken:
            self._limits.stranger(HTTPConnection(scope))
            raise
        self._limits.callback(claims.job_id)
        return claims

    def _claims(self, name: str, token: str) -> CallbackClaims:
        claims = self._tokens.read(token, name)
        if name not in self._gateways:
            raise errors.BadToken("foreign")
        return claims

    async def _body(
        self, headers: Mapping[str, str], receive: Receive, job_id: str, held: AsyncExitStack
    ) -> Received:
        encodings = headers.get("content-encoding")

        async def large() -> None:
            await held.enter_async_context(self._large.one_of(job_id))

        try:
            body = await read_body(
                headers, receive, self._max_bytes, within_s=self._limits.body_timeout_s, large=large
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
        redacted = self._redactor.text
        return {name: redacted(value[:512]) for name, value in headers.items() if _is_kept(name)}


@lru_cache(maxsize=256)
def _is_kept(name: str) -> bool:
    return name in KEPT_HEADERS or (name.startswith(KEPT_PREFIXES) and not name.endswith("secret"))


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers of a request; of several with one name the first."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


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
