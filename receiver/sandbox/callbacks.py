"""Sending callbacks: their bytes, their signature, and how often they are tried."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from urllib.parse import urlsplit

import httpx

from receiver.sandbox import callback_bodies
from receiver.sandbox.config import SandboxConfig, SignatureKey
from receiver.sandbox.jobs import CallbackSent, Event, Jobs, SandboxJob, body_digest

log = logging.getLogger("darkroom.sandbox")

BIG = 5_000_000


def sign(body: bytes, api_key: str, form: SignatureKey) -> str:
    """Apiframe's `X-Webhook-Signature`: an HMAC keyed by the SHA-256 of the API key, raw or as hex text."""
    digest = hashlib.sha256(api_key.encode())
    key = digest.hexdigest().encode() if form == "hex" else digest.digest()
    return "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()


def body_of(job: SandboxJob, event: Event, config: SandboxConfig) -> bytes:
    """The bytes of a callback, spoiled as the job's faults say."""
    links = [job.faults.url for _ in job.specs] if "evil_url" in job.faults else job.links()
    content = callback_bodies.render(job, event, links, config)
    if "big_callback" in job.faults:
        content["padding"] = "x" * (job.faults.bytes or BIG)
    body = json.dumps(content, separators=(",", ":")).encode()
    return body[: len(body) // 2] if "malformed_callback" in job.faults else body


def headers_of(job: SandboxJob, event: Event, body: bytes, config: SandboxConfig) -> dict[str, str]:
    """The headers of a callback; only Apiframe has a signature."""
    headers = {"content-type": "application/json", "user-agent": "darkroom-sandbox"}
    if job.account.gateway != "apiframe":
        return headers
    headers["x-webhook-event"] = event
    if config.signature_key != "none" and "unsigned" not in job.faults:
        key = job.account.key + ("-forged" if "wrong_signature" in job.faults else "")
        headers["x-webhook-signature"] = sign(body, key, config.signature_key)
    return headers


class Courier:
    """Takes callbacks to their receivers and writes down what those answered."""

    def __init__(self, config: SandboxConfig, jobs: Jobs) -> None:
        self._config, self._jobs = config, jobs
        # Redirects are not followed, as the gateways do not; proxies of the environment are not for us.
        # Idle connections are dropped before a usual server drops them, so that none is used while it dies.
        limits = httpx.Limits(max_connections=100, keepalive_expiry=2.0)
        self._client = httpx.AsyncClient(trust_env=False, timeout=config.callback_timeout_s, limits=limits)

    async def once(self, job: SandboxJob, event: Event) -> None:
        """Send a progress event; nobody tries those again."""
        await self._attempt(job, event, 1)

    async def deliver(self, job: SandboxJob, event: Event) -> None:
        """Send the last callback until it is answered 2xx or the attempts are used up."""
        for attempt, delay in enumerate((0.0, *self._config.retry_delays_s), 1):
            await asyncio.sleep(delay)
            delivered = await self._attempt(job, event, attempt)
            if delivered:
                job.webhook_status = "delivered"
            job.told.set()
            self._jobs.changed()
            if delivered:
                return
        if job.webhook_status != "delivered":
            job.webhook_status = "failed"
            log.info("%s callback given up", job.id)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _attempt(self, job: SandboxJob, event: Event, attempt: int) -> bool:
        assert job.callback_url
        body = body_of(job, event, self._config)
        headers = headers_of(job, event, body, self._config)
        status, problem = None, None
        try:
            answer = await self._client.post(job.callback_url, content=body, headers=headers)
            status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = type(error).__name__
        sent = CallbackSent(event, attempt, status, problem, body_digest(body))
        job.callbacks.append(sent)
        # The path of a callback URL is a credential, so only the host is logged.
        host = urlsplit(job.callback_url).netloc
        log.info("%s callback %s to %s, attempt %d: %s", job.id, event, host, attempt, status or problem)
        return sent.answered
