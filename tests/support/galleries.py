"""A running Darkroom with pictures and tokens, browsers without a window, and what holds for every page."""

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
from tests.support.pages import check, read

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
POLICY = {
    "default-src 'none'", "img-src 'self'", "style-src 'self'", "script-src 'self'", "connect-src 'self'",
    "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
}  # fmt: skip


@dataclass(frozen=True)
class Hung:
    live: Live
    kite: dict[str, Any]
    """An archived job with one output, asked for with a tag."""
    ramen: dict[str, Any]
    """An archived job with two outputs, a seed and a negative prompt."""
    hostile: dict[str, Any]
    """An archived job whose prompt is `HOSTILE`."""

    def page(self, client: httpx.Client, path: str, status: int = 200) -> Page:
        """Open a page, and hold it to what every page has to be."""
        return page(client.get(path), status)

    @contextmanager
    def visitor(self, scope: str) -> Iterator[httpx.Client]:
        """A browser in which somebody has signed in with a token of this scope."""
        with httpx.Client(base_url=self.live.url, trust_env=False) as client:
            answer = client.post("/sign-in", data={"token": SECRETS[scope]})
            assert (answer.status_code, answer.headers["location"]) == (303, "/")
            yield client


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


class Page:
    """A page, whose elements must all be closed in their order, as a list of elements and of texts."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.tree = read(answer.text)
        self.elements = [(node.tag, node.attributes) for node in self.tree.within()]
        self.texts = list(self.tree.texts())

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str, **having: str) -> list[dict[str, str]]:
        """The attributes of every element of this kind that has these ones."""
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and all(attributes.get(key.strip("_")) == value for key, value in having.items())
        ]

    def one(self, id_: str) -> dict[str, str]:
        (found,) = [attributes for _, attributes in self.elements if attributes.get("id") == id_]
        return found

    def links(self) -> list[str]:
        return [link["href"] for link in self.all("a") if "href" in link]

    @property
    def csrf(self) -> str:
        """The form token of the session that it was made for."""
        (meta,) = self.all("meta", name="csrf-token")
        assert meta["content"]
        return meta["content"]


def page(answer: httpx.Response, status: int = 200) -> Page:
    """Hold an answer to what every page of the gallery has to be, and take it apart."""
    assert answer.status_code == status, answer.text
    headers = answer.headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert set(headers["content-security-policy"].split("; ")) == POLICY
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    found = Page(answer)
    _check_structure(found)
    check(found.tree)
    _check_labels(found)
    return found


def _check_structure(found: Page) -> None:
    for tag in ("html", "title", "main", "h1"):
        assert len(found.all(tag)) == 1, f"{len(found.all(tag))} of <{tag}>"
    assert found.all("html")[0].get("lang") == "en"


def _check_labels(found: Page) -> None:
    assert all("alt" in image for image in found.all("img"))
    labelled = {label.get("for") for label in found.all("label")}
    for tag in ("input", "select", "textarea"):
        for field in found.all(tag):
            hidden = field.get("type") == "hidden" or "hidden" in field
            assert hidden or field.get("id") in labelled or field.get("aria-label"), field
    assert all(field.get("value") for field in found.all("input", name="csrf"))
