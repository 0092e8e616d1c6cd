"""Adopt an image that an earlier try of the same job stored, and that the ledger does not know of.

A worker may be killed between the write of an image and the ledger's commit. The next try may get other
bytes, because some hosts re-encode an image for each download, or none, because the link has expired.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast
from urllib.parse import quote

from storage.archive.keys import Keys
from storage.archive.object_store import ObjectStore, StoredObject
from storage.errors import Corrupt, NotFound, Unavailable
from storage.media.inspect import KINDS, ON_REQUEST, ImageFacts, inspect
from storage.models import Job

JOB, INDEX, SHA256, THEIRS = (
    "darkroom-job-id",
    "darkroom-output-index",
    "darkroom-sha256",
    "darkroom-gateway-job-id",
)
MAX_BYTES = 1024**3
"""Larger objects are not read."""
MAX_LISTED = 10_000
"""How many keys are listed for one image and one extension."""
_SPOOL_BYTES = 1024**2
# The limit was checked when it was stored, and no pixel is decoded here.
_ANY = 2**63
_UNKNOWN = "\0"
"""Stands for the digest in a key, where no key can have it."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A stored image of a job: the object, and the facts from its bytes."""

    stored: StoredObject
    sha256: str
    bytes: int
    facts: ImageFacts


def marks(job: Job, index: int, sha256: str) -> dict[str, str]:
    """Return the user metadata of an image's object: its job, its index and its SHA-256.

    The gateway's own id of the job is there because a submission that a restored ledger sends again makes
    another image under the same key; percent-encoded, for metadata is ASCII.
    """
    theirs = {THEIRS: quote(job.gateway_job_id)[:200]} if job.gateway_job_id else {}
    return {JOB: job.id, INDEX: str(index), SHA256: sha256, **theirs}


def adopt(store: ObjectStore, keys: Keys, job: Job, index: int, key: str) -> Adopted | None:
    """Return the image under a key, if this submission of the job stored it; None if that is not proven.

    Its metadata must name the job, the index, and the digest of its bytes; and the key must be the one that
    this submission gives to an image of these bytes, so that none is adopted from an earlier submission.
    Old objects have no gateway's job id. Raises NotFound; Corrupt if the store contradicts itself;
    Unavailable if the disk is full.
    """
    stored = store.head(key)
    claimed = _claimed(job, index, stored.metadata)
    if claimed is None or stored.bytes > MAX_BYTES:
        return None
    with SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
        file = cast("BinaryIO", spool)
        if _copy(store, key, file) != (claimed, stored.bytes):
            return None
        try:
            facts = inspect(file, max_pixels=_ANY, also=ON_REQUEST)
        except Corrupt:
            return None
    if keys.image(job, index, extension=facts.extension, sha256=claimed) != key:
        return None
    return Adopted(stored, claimed, stored.bytes, facts)


def find(store: ObjectStore, keys: Keys, job: Job, index: int) -> Adopted | None:
    """Return an image that this submission stored under any key that its template allows; None if none.

    An object that fails the store's own checksum is skipped. The search ends after `MAX_LISTED` keys, and
    there is none where the access key may not list the bucket.
    """
    if not store.facts.lists:
        return None
    for key in _candidates(store, keys, job, index):
        try:
            if (adopted := adopt(store, keys, job, index, key)) is not None:
                return adopted
        except (NotFound, Corrupt):
            continue
    return None


def _candidates(store: ObjectStore, keys: Keys, job: Job, index: int) -> Iterator[str]:
    shapes = (keys.image(job, index, extension=kind.extension, sha256=_UNKNOWN) for kind in KINDS)
    for shape in dict.fromkeys(shapes):
        fits = re.compile(re.escape(shape).replace(_UNKNOWN, "[0-9a-f]{64}"))
        listed = islice(store.list(shape.partition(_UNKNOWN)[0]), MAX_LISTED)
        yield from (stored.key for stored in listed if fits.fullmatch(stored.key))


def _claimed(job: Job, index: int, metadata: Mapping[str, str]) -> str | None:
    """Return the digest in an object's metadata; None if that is not this image's."""
    said = {name.lower(): value for name, value in metadata.items()}
    if (claimed := said.get(SHA256)) is None:
        return None
    wanted = marks(job, index, claimed)
    if THEIRS not in said:
        wanted.pop(THEIRS, None)
    return claimed if wanted.items() <= said.items() else None


def _copy(store: ObjectStore, key: str, file: BinaryIO) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with store.stream(key) as stream:
        for chunk in stream.chunks:
            digest.update(chunk)
            size += len(chunk)
            try:
                file.write(chunk)
            except OSError as error:
                raise Unavailable(f"There is no disk space to read {key}: {error.strerror}.") from error
    return digest.hexdigest(), size
