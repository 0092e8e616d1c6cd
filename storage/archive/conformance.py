"""Probe a store for what it supports: create-only puts (If-None-Match) and SHA-256 checksums."""

import hashlib
import io
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from storage.archive.object_store import ObjectStore
from storage.errors import Conflict, Corrupt, StorageError

BODY = b"darkroom"

LEFT_BEHIND_MS = 3_600_000
"""A probe this much older than the newest one was left by a killed process."""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a store was seen to do; S3-compatible stores differ, and some ignore headers silently."""

    create_only: bool
    """A second `put_new` of a key is refused (conditional put)."""
    checks_sha256: bool
    """A `put_new` whose bytes do not have the SHA-256 that it names is refused."""
    returns_sha256: bool
    """`head` returns the SHA-256."""


def probe(store: ObjectStore, prefix: str = "darkroom-probes/") -> StoreFacts:
    """Write, read and delete small objects below a prefix; returns what the store supports.

    What a killed process left there is deleted too: only objects with the exact key and size of a probe,
    and older than `LEFT_BEHIND_MS`.
    """
    key = f"{prefix}{secrets.token_hex(8)}"
    body, damaged = BODY, f"{key}-damaged"
    sha256, wrong = hashlib.sha256(body).hexdigest(), hashlib.sha256(b"other").hexdigest()
    _put(store, key, body, sha256)
    try:
        create_only = _refused(Conflict, lambda: _put(store, key, body, sha256))
        checks_sha256 = _refused(Corrupt, lambda: _put(store, damaged, body, wrong))
        if store.read(key, max_bytes=len(body)) != body:
            raise Corrupt(f"{key} came back with other bytes than were stored.")
        returns_sha256 = store.head(key).sha256 == sha256
        _sweep(store, prefix, key)
    finally:
        for mine in (key, damaged):
            store.delete(mine)
    return StoreFacts(create_only, checks_sha256, returns_sha256)


def _sweep(store: ObjectStore, prefix: str, newest: str) -> None:
    # Compared with our own probe, so that only the store's clock counts.
    # Anything else may be an image or a file of another program, and stays.
    shape = re.compile(re.escape(prefix) + r"[0-9a-f]{16}(-damaged)?")
    found = [each for each in store.list(prefix) if each.bytes == len(BODY) and shape.fullmatch(each.key)]
    times = {each.key: each.modified_at for each in found}
    now = times.get(newest)
    for key, at in times.items():
        if now is not None and at is not None and now - at > LEFT_BEHIND_MS:
            store.delete(key)


def _put(store: ObjectStore, key: str, body: bytes, sha256: str) -> None:
    file = io.BytesIO(body)
    store.put_new(key, file, size=len(body), sha256=sha256, content_type="text/plain", metadata={})


def _refused(refusal: type[StorageError], put: Callable[[], None]) -> bool:
    try:
        put()
    except refusal:
        return True
    return False
