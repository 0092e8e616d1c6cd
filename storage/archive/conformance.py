"""Probe a store for what it supports: create-only puts, SHA-256 checksums, and what its access key may do.

Optional headers that it refuses are left out, one after the other, until a write succeeds. The objects of a
probe have fixed keys and stay, so nothing piles up where deleting is denied or makes new versions, and an
access key needs no right that the work does not.
"""

import hashlib
import io
from dataclasses import replace
from typing import NamedTuple

from storage.archive import s3
from storage.archive.object_store import ObjectStore, StoredObject
from storage.archive.store_facts import StoreFacts, Support
from storage.errors import Conflict, Corrupt, Misconfigured, NotFound, StorageError

BODY = b"darkroom"
SHA256 = hashlib.sha256(BODY).hexdigest()
WRONG_SHA256 = hashlib.sha256(b"other").hexdigest()


class _Headers(NamedTuple):
    """The optional headers of a put."""

    sha256: bool
    create_only: bool

    def put(self, store: ObjectStore, key: str, sha256: str = SHA256) -> None:
        store.put(
            key,
            io.BytesIO(BODY),
            size=len(BODY),
            sha256=sha256 if self.sha256 else None,
            create_only=self.create_only,
            content_type="text/plain",
            metadata={},
        )


DOWNWARDS = (
    _Headers(sha256=True, create_only=True),
    _Headers(sha256=False, create_only=True),
    _Headers(sha256=True, create_only=False),
    _Headers(sha256=False, create_only=False),
)


def probe(store: ObjectStore, prefix: str = "darkroom-probes/", *, create: bool = False) -> StoreFacts:
    """Find the bucket and try out what it supports; returns that, and lets the store work by it.

    May be repeated at any time, beside the work. `create`: create the bucket if it is missing. Raises
    Misconfigured or Unavailable, each saying what to change.
    """
    lists = _lists(store, create=create)
    key, damaged = f"{prefix}kept", f"{prefix}damaged"
    headers, existed = _write(store, key)
    kept, checksum_mode = _head(store, key)
    copied = headers.sha256 and checksum_mode and kept.sha256 is None
    # What an earlier start wrote does not tell how the store is now. Versions of it would pile up.
    if existed and (copied or kept.version_id is None):
        kept = _rewritten(store, headers, kept, checksum_mode)
    store.facts = replace(store.facts, checksum_mode=checksum_mode)  # for the reading
    facts = StoreFacts(
        addressing=store.facts.addressing,
        create_only=_create_only(store, headers, key, existed=existed),
        sha256=_sha256(store, headers, damaged),
        returns_sha256=kept.sha256 == SHA256,
        keeps_bytes=_keeps_bytes(store, key),
        checksum_mode=checksum_mode,
        lists=lists,
        # In a versioned bucket each try would leave a delete marker.
        deletes=_deletes(store, damaged) if kept.version_id is None else None,
        probe_key=key,
    )
    store.facts = facts
    return facts


def stores(store: ObjectStore, prefix: str) -> bool:
    """Return whether the store takes a write now: that of the probe's object, over the one that is there."""
    try:
        _Headers(sha256=store.facts.sha256 != "refused", create_only=False).put(store, f"{prefix}kept")
    except StorageError:
        return False
    return True


def _lists(store: ObjectStore, *, create: bool) -> bool:
    try:
        store.check(create=create)
    except s3.Denied:
        # The writes that follow tell whether only this right is missing.
        return False
    return True


def _write(store: ObjectStore, key: str) -> tuple[_Headers, bool]:
    """Write the probe with as many headers as the store takes; return them, and whether it was there."""
    refusals: list[StorageError] = []
    for headers in DOWNWARDS:
        try:
            headers.put(store, key)
        except Conflict:
            return headers, True
        except (Misconfigured, Corrupt) as error:
            refusals.append(error)
        else:
            return headers, False
    # The plainest request failed too, so none of these headers is the reason.
    if store.adds_checksums and isinstance(refusals[-1], s3.NotAccepted):
        raise Misconfigured(f"{refusals[-1]} DARKROOM_S3__CHECKSUMS=when_required sends no CRC.")
    raise refusals[-1]


def _head(store: ObjectStore, key: str) -> tuple[StoredObject, bool]:
    """Return the probe's object, and whether the store takes x-amz-checksum-mode."""
    try:
        found, checksum_mode = store.head(key, checksum=True), True
    except (s3.NotAccepted, s3.Denied):
        # Denied too: of an encrypted object, the checksum takes the right kms:Decrypt.
        found, checksum_mode = store.head(key, checksum=False), False
    if found.bytes != len(BODY):
        raise Corrupt(f"{key} has {found.bytes} bytes, and Darkroom wrote {len(BODY)}: delete that object.")
    return found, checksum_mode


def _rewritten(
    store: ObjectStore,
    headers: _Headers,
    kept: StoredObject,
    checksum_mode: bool,  # noqa: FBT001
) -> StoredObject:
    """Write the object again: to see what becomes of it, and because a copy of a bucket loses checksums."""
    try:
        headers._replace(create_only=False).put(store, kept.key)
    except (Misconfigured, Conflict):
        return kept
    return store.head(kept.key, checksum=checksum_mode)


def _keeps_bytes(store: ObjectStore, key: str) -> bool:
    """Return whether the probe's object has the bytes that were written."""
    try:
        return store.read(key, max_bytes=len(BODY)) == BODY
    except Corrupt:
        return False


def _create_only(store: ObjectStore, headers: _Headers, key: str, *, existed: bool) -> Support:
    if not headers.create_only:
        return "refused"
    if existed:
        return "honoured"
    try:
        headers.put(store, key)
    except Conflict:
        return "honoured"
    return "ignored"


def _sha256(store: ObjectStore, headers: _Headers, key: str) -> Support:
    if not headers.sha256:
        return "refused"
    try:
        store.head(key, checksum=False)
    except NotFound:
        pass
    except s3.Denied:
        # So is a missing object where the bucket may not be listed.
        pass
    else:
        return "ignored"  # then it stored that object at an earlier start
    try:
        headers.put(store, key, WRONG_SHA256)
    except (Corrupt, s3.NotAccepted):
        return "honoured"
    except Conflict:
        pass
    return "ignored"


def _deletes(store: ObjectStore, key: str) -> bool:
    try:
        store.delete(key)
    except Misconfigured:
        return False
    return True
