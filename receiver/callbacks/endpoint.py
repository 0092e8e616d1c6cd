"""The webhook endpoint: believe nothing unproven, answer 2xx only for what is on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from time import perf_counter
from typing import Any, ParamSpec, TypeVar

import structlog
import uuid_utils
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from receiver.callbacks.intake import Intake
from receiver.callbacks.tokens import CallbackClaims, CallbackTokens
from receiver.errors import (
    BadSignature,
    BadToken,
    BodyTooLarge,
    DarkroomError,
    JobMismatch,
    MalformedCallback,
    TooManyCallbacks,
    TooManyRequests,
    UnknownJob,
    Unready,
)
from receiver.gateways.base import Gateway
from receiver.http.limits import LARGE, LargeBodies, Limits, read_body
from receiver.http.query import NoQuery
from receiver.http.routing import Answer, Body, Operation, Served
from receiver.redaction import Redactor
from receiver.schemas.problem import CallbackAccepted
from receiver.telemetry.metrics import Metrics
from storage.ledger.deliveries import MAX_DELIVERIES, DeliveryResult, NewDelivery
from storage.models import Clock, Delivery

P = ParamSpec("P")
Result = TypeVar("Result")

log = structlog.get_logger("darkroom.callbacks")

KEPT_HEADERS = ("content-type", "user-agent", "x-request-id")
KEPT_PREFIXES = ("x-webhook-", "webhook-")


CALLBACK = Operation(
    # `token:path`, so that even a mangled token gets the one plain answer that all bad ones get.
    "POST /callbacks/{gateway}/{token:path}",
    "take_callback",
    query=NoQuery,
    path={"gateway": str, "token": str},
    body=Body(Any, "What the gateway has to say, in its own words."),
    answers={200: Answer(CallbackAccepted, "It is on disk.")},
    errors=(
        BadToken,
        BadSignature,
        MalformedCallback,
        JobMismatch,
        TooManyCallbacks,
        TooManyRequests,
        UnknownJob,
        Unready,
    ),
)


class Callbacks:
    """`POST /callbacks/{gateway}/{token}`, the only route that must be public."""

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
    ) -> None:
        self._intake = intake
        self._gateways = gateways
        self._tokens = tokens
        self._max_bytes = max_bytes
        self._limits = limits
        self._large = LargeBodies()
        self._redactor = redactor
        self._clock = clock
        self._metrics = metrics

    def routes(self) -> list[Served]:
        """The routes of this part."""
        return [Served(CALLBACK, self.receive)]

    async def receive(self, request: Request) -> Response:
        """Verify a callback and record it."""
        # The order of the checks is cheapest first.
        name, token = request.path_params["gateway"], request.path_params["token"]
        began, outcome = perf_counter(), "internal"
        try:
            # Before the body is read, so that a stranger cannot make us hold one.
            bearing = self._authenticate(request, name, token)
            async with AsyncExitStack() as held:
                body = await self._body(request, bearing.job_id, held)
                # A large body takes long enough to read that other requests would notice.
                apart = run_in_threadpool if len(body) > LARGE else _here
                offer = await apart(self._offer, name, bearing, request.headers, body)
                receipt = await self._intake.take(offer)
            _refuse(receipt)
            outcome = receipt.value
        except DarkroomError as error:
            outcome = error.code
            self._tell_refusal(name, error)
            raise
        except ClientDisconnect:
            outcome = "disconnected"
            raise
        finally:
            self._metrics.count("darkroom_callbacks_total", gateway=name, outcome=outcome)
        self._metrics.observe("darkroom_callback_seconds", perf_counter() - began, gateway=name)
        log.info("callback", job=bearing.job_id, gateway=name, receipt=receipt)
        # Exactly 200, because some senders take any other 2xx for a failure.
        return JSONResponse({"status": receipt})

    def _tell_refusal(self, name: str, error: DarkroomError) -> None:
        if isinstance(error, TooManyRequests):
            return
        reason = error.reason if isinstance(error, BadToken) else None
        log.warning("callback refused", gateway=name[:64], code=error.code, reason=reason)
        if reason is not None:
            self._metrics.count("darkroom_callbacks_bad_token_total", gateway=name, reason=reason)

    def _authenticate(self, request: Request, name: str, token: str) -> CallbackClaims:
        try:
            bearing = self._proven(name, token)
        except BadToken:
            self._limits.stranger(request)
            raise
        self._limits.callback(bearing.job_id)
        return bearing

    def _proven(self, name: str, token: str) -> CallbackClaims:
        bearing = self._tokens.read(token, name)
        if name not in self._gateways:
            raise BadToken("foreign")
        return bearing

    async def _body(self, request: Request, job_id: str, held: AsyncExitStack) -> bytes:
        large = partial(held.enter_async_context, self._large.one_of(job_id))
        try:
            body = await read_body(
                request, self._max_bytes, within_s=self._limits.body_timeout_s, large=large
            )
        except BodyTooLarge:
            self._limits.callback_body(job_id, self._max_bytes)
            raise
        self._limits.callback_body(job_id, len(body))
        return body

    def _offer(
        self, name: str, bearing: CallbackClaims, headers: Mapping[str, str], body: bytes
    ) -> NewDelivery:
        gateway = self._gateways[name]
        verdict = gateway.verify(headers, body)
        completion = gateway.read_callback(body)
        delivery = Delivery(
            id=str(uuid_utils.uuid7()),
            job_id=bearing.job_id,
            gateway=name,
            received_at=self._clock(),
            headers=self._kept(headers),
            body=self._redactor.body(body),
            body_sha256=hashlib.sha256(body).hexdigest(),
            signature=verdict,
        )
        return NewDelivery(delivery, completion.gateway_job_id, bearing.submission)

    def _kept(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {
            name: self._redactor.text(value[:512])
            for name, value in headers.items()
            if name in KEPT_HEADERS or (name.startswith(KEPT_PREFIXES) and not name.endswith("secret"))
        }


async def _here(work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    return work(*args, **kwargs)


def _refuse(receipt: DeliveryResult) -> None:
    if receipt is DeliveryResult.MISMATCH:
        raise JobMismatch("The body speaks of another job than this URL was made for.")
    if receipt is DeliveryResult.UNKNOWN_JOB:
        raise UnknownJob("The ledger does not know the job of this URL.")
    if receipt is DeliveryResult.TOO_MANY:
        raise TooManyCallbacks(f"This job has {MAX_DELIVERIES} different callbacks already.")
