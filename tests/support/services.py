"""Fixtures: an S3 server that runs once for all tests, and a fresh bucket for each test.

With DARKROOM_TEST_S3_ENDPOINT, _ACCESS_KEY and _SECRET_KEY set, another S3 server is used instead.
"""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from storage.archive.object_store import ObjectStore

DOMAIN = "oss.example"
"""Nothing resolves it; an HTTP proxy leads there."""


@dataclass(frozen=True, slots=True)
class S3Access:
    endpoint: str
    access_key: str
    secret_key: str
    proxy: str | None = None

    def open(self, kind: type[ObjectStore] = ObjectStore, **settings: Any) -> ObjectStore:
        """Connect to a bucket, by default one that does not exist yet."""
        defaults = {
            "bucket": f"test-{uuid.uuid4().hex}",
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "proxy": self.proxy,
        }
        return kind.connect(**{**defaults, **settings})


class NamedS3(EmbeddedS3):
    """One that has its buckets under a host name too: `pictures.oss.example`."""

    def _arguments(self) -> list[str]:
        return [*super()._arguments(), f"-s3.domainName={DOMAIN}"]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    with NamedS3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_access(request: pytest.FixtureRequest) -> S3Access:
    if endpoint := os.environ.get("DARKROOM_TEST_S3_ENDPOINT"):
        names = ("DARKROOM_TEST_S3_ACCESS_KEY", "DARKROOM_TEST_S3_SECRET_KEY")
        return S3Access(endpoint, *(os.environ[name] for name in names))
    server: EmbeddedS3 = request.getfixturevalue("s3_server")
    return S3Access(server.endpoint, server.access_key, server.secret_key)


@pytest.fixture
def store(s3_access: S3Access) -> ObjectStore:
    store = s3_access.open()
    store.check(create=True)
    return store
