"""Configure a sandbox: accounts, timing, and what is not documented of the real gateways."""

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
    """A customer of one of the gateways, by API key."""

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
    """Least and most time of a job, without drawing. Equal requests take equal time."""
    signature_key: SignatureKey = "raw"
    """What keys Apiframe's HMAC: the digest of the API key as bytes, as hex text, or nothing is signed."""
    dialect: Dialect = "envelope"
    """The default shape of API in One's callbacks."""
    bare_result: bool = False
    """Apiframe's older shape: `result` is one URL as text and not `{"images": [...]}`."""
    reports_seed: bool = True
    """Whether API in One repeats the seed that it was given."""
    retention_s: float = 24 * 3600
    """How long image links live after completion."""
    retry_delays_s: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Backoff between attempts to deliver a callback."""
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
    """Seconds since 1970 UTC. Decides when links and idempotency keys expire."""
