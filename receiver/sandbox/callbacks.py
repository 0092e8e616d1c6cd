"""Send callbacks: build, sign, retry."""

import asyncio
import hashlib
import hmac
import json
import logging
from urllib.parse import urlsplit

import httpx

from receiver.sandbox import callback_bodies
from receiver.sandbox.config import SandboxConfig, SignatureKey
from receiver.sandbox.jobs import CallbackSent, Event, Jobs, SandboxJob

log = logging.getLogger("darkroom.sandbox")

BIG = 5_000_000


def sign(body: bytes, api_key: str, form: SignatureKey) -> str:
    """Return Apiframe's `X-Webhook-Signature`: an HMAC keyed by the API key's SHA-256, raw or in hex."""
    digest = hashlib.sha256(api_key.encode())
    key = digest.hexdigest().encode() if form == "hex" else digest.digest()
    return "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()


def body_of(job: SandboxJob, event: Event, config: SandboxConfig) -> bytes:
    """Return the bytes of a callback, broken as the job's faults say."""
    links = [job.faults.url for _ in job.specs] if "evil_url" in job.faults else job.named()
    content = callback_bodies.render(job, event, links, config)
    if "big_callback" in job.faults:
        content["padding"] = "x" * (job.faults.bytes or BIG)
    body = json.dumps(content, separators=(",", ":")).encode()
    return body[: len(body) // 2] if "malformed_callback" in job.faults else body


def headers_of(job: SandboxJob, event: Event, body: bytes, config: SandboxConfig) -> dict[str, str]:
    """Return the headers of a callback; only Apiframe has a signature."""
    headers = {"content-type": "application/json", "user-agent": "darkroom-sandbox"}
    if job.account.gateway != "apiframe":
        return headers
    headers["x-webhook-event"] = event
    if config.signature_key != "none" and "unsigned" not in job.faults:
        key = job.account.key + ("-forged" if "wrong_signature" in job.faults else "")
        headers["x-webhook-signature"] = sign(body, key, config.signature_key)
    return headers


class CallbackSender:
    """Sends callbacks and records the responses."""

    def __init__(self, config: SandboxConfig, jobs: Jobs) -> None:
        self._config, self._jobs = config, jobs
        # As the gateways do, it follows no redirects. Proxies of the environment are ignored.
        # Idle connections are closed before a usual server closes them, so that none is used meanwhile.
        limits = httpx.Limits(max_connections=100, keepalive_expiry=2.0)
        self._client = httpx.AsyncClient(trust_env=False, timeout=config.callback_timeout_s, limits=limits)

    async def deliver(self, job: SandboxJob, event: Event) -> None:
        """Send the last callback, with retries until 2xx."""
        for attempt, delay in enumerate((0.0, *self._config.retry_delays_s), 1):
            await asyncio.sleep(delay)
            delivered = await self.once(job, event, attempt)
            if delivered:
                job.webhook_status = "delivered"
            job.callbacks_sent.set()
            self._jobs.changed()
            if delivered:
                return
        if job.webhook_status != "delivered":
            job.webhook_status = "failed"
            log.info("%s callback failed", job.id)

    async def once(self, job: SandboxJob, event: Event, attempt: int = 1) -> bool:
        """Send a callback, without retries; return whether it was delivered."""
        assert job.callback_url
        body = body_of(job, event, self._config)
        headers = headers_of(job, event, body, self._config)
        status, problem = None, None
        try:
            response = await self._client.post(job.callback_url, content=body, headers=headers)
            status = response.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = type(error).__name__
        sent = CallbackSent(event, attempt, status, problem, hashlib.sha256(body).hexdigest())
        job.callbacks.append(sent)
        # The path of a callback URL is a credential, so only the host is logged.
        host = urlsplit(job.callback_url).netloc
        log.info("%s callback %s to %s, attempt %d: %s", job.id, event, host, attempt, status or problem)
        return sent.delivered

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
