"""How a sandbox is set up: its accounts, its timing, and what is unsettled about the real gateways."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Dialect = Literal["envelope", "kie", "kling", "evolink", "flat"]
SignatureKey = Literal["raw", "hex", "none"]
GatewayName = Literal["apiframe", "api-in-one"]

DIALECTS: tuple[Dialect, ...] = get_args(Dialect)


@dataclass(frozen=True, slots=True)
class Account:
    """A customer of one of the gateways, known by its API key."""

    key: str
    gateway: GatewayName
    credits: int = 10_000_000
    active: bool = True


ACCOUNTS = (
    Account("afk_sandbox", "apiframe"),
    Account("afk_poor", "apiframe", credits=5),
    Account("afk_inactive", "apiframe", active=False),
    Account("aio_sandbox", "api-in-one"),
    Account("aio_poor", "api-in-one", credits=5),
    Account("aio_inactive", "api-in-one", active=False),
)


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """Settings of one sandbox; every time is in seconds."""

    accounts: tuple[Account, ...] = ACCOUNTS
    latency_s: tuple[float, float] = (0.3, 1.2)
    """Least and most time that a job takes, drawing apart. Jobs that ask for the same take the same."""
    signature_key: SignatureKey = "raw"
    """What keys Apiframe's HMAC: the digest of the API key as bytes, as hex text, or nothing is signed."""
    dialect: Dialect = "envelope"
    """The shape of API in One's callbacks, where a job does not say."""
    bare_result: bool = False
    """Apiframe's older shape: `result` is one URL as text and not `{"images": [...]}`."""
    reports_seed: bool = True
    """Whether API in One repeats the seed that it was given."""
    retention_s: float = 24 * 3600
    """How long image links live after completion."""
    retry_delays_s: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Waits between attempts to deliver a callback that was not answered 2xx."""
    callback_timeout_s: float = 10.0
    public_url: str | None = None
    """What image links begin with; by default the address that the submit request was sent to."""
    image_px: int = 1024
    """Side of a square image at 1K, in pixels. Small values make a fast sandbox for tests."""
    plain_images: bool = False
    """Draw patches of colour and no pictures, in a millisecond each, where only speed counts."""
    drawing_threads: int = 2
    keep_images: int = 32
    """How many drawn images stay in memory; others are drawn again when they are asked for."""
    keep_jobs: int = 50_000
    """How many jobs are remembered; the oldest finished ones are forgotten first."""
    clock: Callable[[], float] = time.time
    """Seconds since 1970 UTC. Decides when links expire and idempotency keys are forgotten."""
