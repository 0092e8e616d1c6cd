"""The archive's bucket: connected to as the settings say, and tried out before anything relies on it."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from receiver.settings import S3Settings
from storage.archive.conformance import StoreFacts, probe
from storage.archive.object_store import ObjectStore

log = structlog.get_logger("darkroom.bucket")


def open_bucket(s3: S3Settings, connect: Callable[..., ObjectStore]) -> tuple[ObjectStore, StoreFacts]:
    """Connect, and find out what the store keeps to; raises Misconfigured or Unavailable.

    `connect` is `ObjectStore.connect`, or takes what that takes.
    """
    store = _store(s3, connect)
    store.check(create=s3.create_bucket)
    facts = probe(store, f"{s3.prefix}darkroom-probes/")
    _warn(facts)
    return store, facts


def _store(s3: S3Settings, connect: Callable[..., ObjectStore]) -> ObjectStore:
    assert s3.bucket is not None
    return connect(
        bucket=s3.bucket,
        endpoint=s3.endpoint,
        public_endpoint=s3.public_endpoint,
        region=s3.region,
        access_key=s3.access_key.get_secret_value() if s3.access_key else None,
        secret_key=s3.secret_key.get_secret_value() if s3.secret_key else None,
        checksums=s3.checksums,
    )


def _warn(facts: StoreFacts) -> None:
    if not facts.create_only:
        log.warning("the store ignores If-None-Match, so two writers of one key are not kept apart")
    if not (facts.checks_sha256 and facts.returns_sha256):
        log.warning("the store does not check SHA-256 itself, so each image is read back in full")
