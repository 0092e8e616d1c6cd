"""A running Darkroom with pictures and tokens, and browsers without a window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.support.live import IMAGEN, ULTRA, Live, started
from tests.support.pages import visiting

SECRETS = {
    "read": "reader-reader-reader",
    "submit": "submit-submit-submit",
    "admin": "admin-admin-admin-a",
}
TOKENS = [f"{scope}-token:{scope}:{secret}" for scope, secret in SECRETS.items()]
COOKIE = "darkroom-session"
MAX_BYTES = 200_000
"""As large as an image in this archive may be."""

HOSTILE = (
    "<script>alert(1)</script> \"double\" 'single' </title></textarea> onerror=alert(2) &amp; "
    "{{ 7 * 7 }} \u202eturned around\u202c שלום 寿司"
)


@dataclass(frozen=True)
class Hung:
    live: Live
    kite: dict[str, Any]
    """An archived job with one output, asked for with a tag."""
    ramen: dict[str, Any]
    """An archived job with two outputs, a seed and a negative prompt."""
    hostile: dict[str, Any]
    """An archived job whose prompt is `HOSTILE`."""

    @contextmanager
    def visitor(self, scope: str) -> Iterator[httpx.Client]:
        """A browser in which somebody has signed in with a token of this scope."""
        with visiting(self.live.url, SECRETS[scope]) as visitor:
            yield visitor.http


@pytest.fixture(scope="session")
def hung(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hung]:
    folder = tmp_path_factory.mktemp("hung")
    with started(
        s3_server, folder, sandbox=sandbox, api_tokens=TOKENS, download={"max_bytes": MAX_BYTES}
    ) as live:
        live.http.headers["authorization"] = f"Bearer {SECRETS['admin']}"
        asked = [
            live.submit(IMAGEN, tags={"campaign": "spring sale"}, aspect_ratio="16:9"),
            live.submit(ULTRA, num_images=2, seed=42, negative_prompt="blurry, <b>text</b>"),
            live.submit(ULTRA, prompt=HOSTILE, tags={"mark": '"><script>'}),
        ]
        yield Hung(live, *(live.finish(job["id"]) for job in asked))


@pytest.fixture(scope="session")
def reader(hung: Hung) -> Iterator[httpx.Client]:
    with hung.visitor("read") as client:
        yield client


@pytest.fixture(scope="session")
def submitter(hung: Hung) -> Iterator[httpx.Client]:
    with hung.visitor("submit") as client:
        yield client
