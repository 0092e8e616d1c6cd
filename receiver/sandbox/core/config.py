"""Configure a sandbox: accounts, timing, pictures. What differs by gateway is set on its stand-in."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Account:
    """A customer of one of the gateways, by API key."""

    key: str
    gateway: str
    credits: int = 10_000_000
    active: bool = True


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """Settings of one sandbox; every time is in seconds."""

    accounts: tuple[Account, ...] = ()
    """Without any, each gateway has three: one with credits, one with 5, and one that is inactive."""
    latency_s: tuple[float, float] = (0.3, 1.2)
    """Least and most time of a job, without drawing. Equal requests take equal time."""
    retention_s: float | None = None
    """How long image links live after completion; None: as long as each gateway says."""
    retry_delays_s: tuple[float, ...] | None = None
    """Backoff between attempts to deliver a callback; None: as each gateway says."""
    callback_timeout_s: float = 10.0
    public_url: str | None = None
    """The base URL of image links; by default that of the submit request."""
    image_px: int = 1024
    """Side of a square image at 1K, in pixels. Small values make a fast sandbox for tests."""
    plain_images: bool = False
    """Draw patches of colour instead of pictures, in a millisecond each."""
    drawing_threads: int = 2
    keep_images: int = 32
    """How many drawn images are cached; others are drawn again on request."""
    keep_jobs: int = 50_000
    """How many jobs are kept; the oldest finished ones are dropped first."""
    clock: Callable[[], float] = time.time
    """Seconds since 1970 UTC. Decides when links and idempotency keys expire, and dates signatures."""
