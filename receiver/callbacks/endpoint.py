"""Authenticate, verify and record callbacks: the webhook endpoint. Returns 200 only for what is on disk."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

import uuid_utils
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope

from receiver import errors
from receiver.callbacks.encodings import decoded
from receiver.callbacks.intake import Intake
from receiver.callbacks.keys import PublicKeys
from receiver.callbacks.tokens import CallbackClaims, CallbackTokens
from receiver.gateways.base import Gateway
from receiver.http.limits import LARGE, LargeBodies, Limits, read_body
from receiver.http.middleware import Respond, problem_of, shown_path
from receiver.http.routing import Answer, Body, Operation
from receiver.redaction import Redactor
from receiver.schemas.problem import CallbackAccepted, CallbackReady
from receiver.telemetry.metrics import Metrics
from storage.errors import StorageError
from storage.ledger.deliveries import MAX_DELIVERIES, DeliveryResult, NewDelivery
from storage.models import Clock, Delivery, Verdict

KEPT_HEADERS = ("content-type", "content-encoding", "user-agent", "x-request-id")

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


# Exactly 200, because some senders take any other 2xx for a failure.
_RESPONSES = {
    result: JSONResponse({"status": result.value})
    for result in (DeliveryResult.ACCEPTED, DeliveryResult.DUPLICATE)
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
        keys: PublicKeys,
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
        self._keys = keys
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
        scope, began = request.scope, perf_counter()
        outcome: DeliveryResult | BaseException
        try:
            outcome = await self._recorded(scope, request.receive)
        except BaseException as error:  # noqa: BLE001 - what is not ours is raised again
            outcome = error
        return self._response(scope, began, outcome)

    def receive_whole(self, scope: Scope, body: bytes, respond: Respond) -> bool:
        """Do the same for a body that is here, without a task: respond later, on the event loop.

        Returns False, and has done nothing, for what `receive` must do: all that may have to wait, and
        whatever has no valid token.
        """
        began, headers = perf_counter(), _headers(scope)
        if len(body) >= LARGE or len(body) > self._max_bytes or "content-encoding" in headers:
            return False
        name = scope["path_params"]["gateway"]
        try:
            claims = self._claims(name, scope["path_params"]["token"])
        except errors.BadToken:
            return False
        scope["state"]["job"] = claims.job_id
        try:
            self._limits.callback(claims.job_id)
            recorded = self._intake.put(self._verified(name, claims, headers, Received(body, body)))
        except Exception as error:  # noqa: BLE001 - what is not ours is raised again
            refused = error
            respond(lambda: self._response(scope, began, refused))
        else:
            recorded.add_done_callback(
                lambda it: respond(lambda: self._response(scope, began, it.exception() or it.result()))
            )
        return True

    def _response(self, scope: Scope, began: float, outcome: DeliveryResult | BaseException) -> Response:
        """Count a callback and note its line of the log; return the response, or raise what is not ours."""
        if isinstance(outcome, DeliveryResult):
            if outcome in _RESPONSES:
                self._note_recorded(scope, began, outcome)
                return _RESPONSES[outcome]
            outcome = self._refusal(outcome)
        name, told = scope["path_params"]["gateway"], "internal"
        if isinstance(outcome, errors.DarkroomError):
            told = outcome.code
            self._note_refusal(scope, outcome)
        elif isinstance(outcome, ClientDisconnect):
            told = "disconnected"
        self._metrics.count("darkroom_callbacks_total", gateway=name, outcome=told)
        if not isinstance(outcome, errors.DarkroomError | StorageError):
            raise outcome
        return problem_of(outcome)

    def _note_recorded(self, scope: Scope, began: float, result: DeliveryResult) -> None:
        name, state = scope["path_params"]["gateway"], scope["state"]
        self._metrics.observe("darkroom_callback_seconds", perf_counter() - began, gateway=name)
        self._metrics.count("darkroom_callbacks_total", gateway=name, outcome=result.value)
        line = {"event": "callback", "job": state["job"], "gateway": name, "result": result.value}
        state["line"] = {**line, "path": f"/callbacks/{name}/[token]"}

    def _refusal(self, result: DeliveryResult) -> errors.DarkroomError:
        if result is DeliveryResult.MISMATCH:
            return errors.JobMismatch("The body is about another job than this URL was made for.")
        if result is DeliveryResult.TOO_MANY:
            return errors.TooManyCallbacks(f"This job has {MAX_DELIVERIES} different callbacks already.")
        if result is DeliveryResult.LATER_JOB and not self._accept_incomplete:
            # Not 404, after which the gateway would give up: the ledger may be restored until it comes again.
            return errors.LedgerIncomplete("The ledger lacks the job of this URL, which was signed here.")
        return errors.UnknownJob("The ledger does not know the job of this URL.")

    async def _recorded(self, scope: Scope, receive: Receive) -> DeliveryResult:
        """Return what became of a callback once that is durable."""
        # The order of the checks is cheapest first. The token's is before the body is read, so that a
        # stranger cannot make us keep one in memory.
        claims = self._authenticate(scope)
        scope["state"]["job"] = claims.job_id
        name, headers = scope["path_params"]["gateway"], _headers(scope)
        async with AsyncExitStack() as held:
            body = await self._body(headers, receive, claims.job_id, held)
            if len(body.plain) <= LARGE:
                delivery = self._verified(name, claims, headers, body)
            else:
                # It takes long enough to read that other requests would notice.
                delivery = await run_in_threadpool(self._verified, name, claims, headers, body)
            return await self._intake.take(delivery)

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
            claims = self._claims(given["gateway"], given["token"])
        except errors.BadToken:
            self._limits.stranger(HTTPConnection(scope))
            raise
        self._limits.callback(claims.job_id)
        return claims

    def _claims(self, name: str, token: str) -> CallbackClaims:
        # Some frameworks put a slash behind every URL.
        claims = self._tokens.read(token.rstrip("/"), name)
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
        received_at = self._clock()
        signature = self._signature(name, headers, received, received_at / 1000)
        completion = gateway.read_callback(body)
        delivery = Delivery(
            id=str(uuid_utils.uuid7()),
            job_id=claims.job_id,
            gateway=name,
            received_at=received_at,
            headers=self._kept(headers),
            body=self._redactor.body(body),
            body_sha256=hashlib.sha256(body).hexdigest(),
            signature=signature,
        )
        return NewDelivery(delivery, completion.gateway_job_id, claims.submission)

    def _signature(self, name: str, headers: Mapping[str, str], body: Received, now_s: float) -> Verdict:
        keys = self._keys.of(name)
        try:
            return _signature(self._gateways[name], headers, body, now_s, keys)
        except errors.BadSignature:
            if not self._keys.refetch(name):
                raise
            # Its keys may be others by now, so this callback is not proven, and the gateway is asked.
            return Verdict.ABSENT

    def _kept(self, headers: Mapping[str, str]) -> dict[str, str]:
        redacted = self._redactor.text
        return {name: redacted(value[:512]) for name, value in headers.items() if _is_kept(name)}


@lru_cache(maxsize=256)
def _is_kept(name: str) -> bool:
    signed = "webhook-" in name or name.endswith("-signature")
    return name in KEPT_HEADERS or (signed and not name.endswith("secret"))


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers of a request; of several with one name the first."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def _signature(
    gateway: Gateway, headers: Mapping[str, str], body: Received, now_s: float, keys: Sequence[bytes]
) -> Verdict:
    """Verify the signature, which may be over the body as it was sent, or over what it was before."""
    try:
        return gateway.verify(headers, body.sent, now_s=now_s, keys=keys)
    except errors.BadSignature:
        if body.plain == body.sent:
            raise
        return gateway.verify(headers, body.plain, now_s=now_s, keys=keys)
