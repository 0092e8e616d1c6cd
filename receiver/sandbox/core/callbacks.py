"""Send callbacks: build, sign, retry."""

import asyncio
import base64
import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

import httpx

from receiver.sandbox.core.config import SandboxConfig
from receiver.sandbox.core.jobs import CallbackSent, Event, Jobs, SandboxJob

log = logging.getLogger("darkroom.sandbox")

BIG = 5_000_000
STALE_S = 3600
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """What is signed of one attempt to deliver a callback."""

    job: SandboxJob
    event: Event
    body: bytes
    id: str
    """The same on each attempt."""
    sent_at: int
    """In seconds since 1970 UTC."""


class Caller(ABC):
    """What the life of a job needs to know of its gateway: what is told, when, and how it is signed."""

    name: ClassVar[str]
    """Its name in URLs, settings and the ledger: `api-in-one`."""
    life_s: ClassVar[float] = 24 * 3600
    """How long its image links live after completion."""
    retry_delays_s: ClassVar[tuple[float, ...]] = (0.5, 1.0, 2.0)
    """Backoff between its attempts to deliver a callback."""

    @abstractmethod
    def callback(self, job: SandboxJob, event: Event, links: list[Any]) -> Body:
        """Build the body of a callback. `links` is empty where a fault takes the images away."""

    def callbacks(self, job: SandboxJob, event: Event, links: list[Any]) -> list[Body]:
        """Build the bodies of all callbacks of an event, where each image has its own."""
        return [self.callback(job, event, links)]

    def tells(self, job: SandboxJob) -> bool:
        """Return whether a callback is sent now that a job has got on: to 10, 45 and 80 per cent."""
        return "progress" in job.events

    def inlines(self, job: SandboxJob) -> bool:  # noqa: ARG002 - a default
        """Return whether it gives a job's images themselves, as data URIs, instead of links."""
        return False

    def headers(self, event: Event) -> dict[str, str]:  # noqa: ARG002 - a default
        """Return further headers of a callback, beside those of its signature."""
        return {}

    def key(self, job: SandboxJob) -> bytes | None:  # noqa: ARG002 - a default
        """Return the key of its signatures; None if it signs nothing."""
        return None

    def sign(self, key: bytes, message: Message) -> dict[str, str]:  # noqa: ARG002 - a default
        """Return the headers of a signature."""
        return {}


class CallbackSender:
    """Sends callbacks and records the responses."""

    def __init__(self, config: SandboxConfig, jobs: Jobs, callers: Mapping[str, Caller]) -> None:
        self._config, self._jobs, self._callers = config, jobs, callers
        # As the gateways do, it follows no redirects. Proxies of the environment are ignored.
        # Idle connections are closed before a usual server closes them, so that none is used meanwhile.
        limits = httpx.Limits(max_connections=100, keepalive_expiry=2.0)
        self._client = httpx.AsyncClient(trust_env=False, timeout=config.callback_timeout_s, limits=limits)

    async def deliver(self, job: SandboxJob, event: Event) -> None:
        """Send the callbacks of an event, each with retries until 2xx."""
        for part in range(len(self._bodies(job, event))):
            await self._deliver(job, event, part)

    async def _deliver(self, job: SandboxJob, event: Event, part: int) -> None:
        delays = self._config.retry_delays_s
        if delays is None:
            delays = self._callers[job.account.gateway].retry_delays_s
        for attempt, delay in enumerate((0.0, *delays), 1):
            await asyncio.sleep(delay)
            delivered = await self.once(job, event, attempt, part)
            if delivered:
                job.webhook_status = "delivered"
            job.callbacks_sent.set()
            self._jobs.changed()
            if delivered:
                return
        if job.webhook_status != "delivered":
            job.webhook_status = "failed"
            log.info("%s callback failed", job.id)

    async def once(self, job: SandboxJob, event: Event, attempt: int = 1, part: int = 0) -> bool:
        """Send a callback, without retries; return whether it was delivered."""
        assert job.callback_url
        body = _bytes(job, self._bodies(job, event)[part])
        headers = self._headers(job, event, body, part)
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

    def _bodies(self, job: SandboxJob, event: Event) -> Sequence[Body]:
        links = [job.faults.url for _ in job.specs] if "evil_url" in job.faults else job.named()
        return self._callers[job.account.gateway].callbacks(job, event, links)

    def _headers(self, job: SandboxJob, event: Event, body: bytes, part: int) -> dict[str, str]:
        caller = self._callers[job.account.gateway]
        headers = {"content-type": "application/json", "user-agent": "darkroom-sandbox"}
        headers |= caller.headers(event)
        key = None if "unsigned" in job.faults else caller.key(job)
        if key is None:
            return headers
        if "wrong_signature" in job.faults:
            key += b"-forged"
        sent_at = int(self._config.clock()) - (STALE_S if "stale_signature" in job.faults else 0)
        return headers | caller.sign(key, Message(job, event, body, f"msg_{job.id}_{event}_{part}", sent_at))

    async def fetch(self, url: str) -> bytes:
        """Return the bytes of an image that was sent by URL, as a data URI, or in base64.

        Raises httpx.HTTPError, httpx.InvalidURL, or ValueError if it is not base64.
        """
        if not url.startswith(("http:", "https:")):
            return base64.b64decode(url.rpartition(",")[2], validate=True)
        response = await self._client.get(url)
        return response.raise_for_status().content

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _bytes(job: SandboxJob, content: Body) -> bytes:
    """Return the bytes of a callback, broken as the job's faults say."""
    content = bent(job, content)
    if "big_callback" in job.faults:
        content["padding"] = "x" * (job.faults.bytes or BIG)
    body = json.dumps(content, separators=(",", ":")).encode()
    return body[: len(body) // 2] if "malformed_callback" in job.faults else body


def bent(job: SandboxJob, body: Body) -> Body:
    """Return the body of a callback or a poll, bent as the faults of its job say."""
    data = body.get("data")
    tasks: list[Body] = (
        [data] if isinstance(data, dict) else [body, *(data if isinstance(data, list) else ())]
    )
    if "odd_place" in job.faults and job.status == "COMPLETED":
        tasks[0]["media"] = {"files": [{"href": link} for link in job.links()]}
    for task in tasks:
        for key in ("event", "status", "state", "task_status"):
            if "odd_status" in job.faults and key in task:
                task[key] = job.faults.message
    return body
