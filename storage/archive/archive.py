"""Write a job to the bucket, create-only: its images first, its record last, each proven before it counts.

Where the store was seen to check SHA-256, its answer to the write that names the digest is the proof. Where
it was not, or the answer names another digest, what is stored is read back and compared.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256 as digest_of
from itertools import islice
from typing import Any, BinaryIO

import orjson

from storage.archive import adopt, conformance
from storage.archive.keys import Keys
from storage.archive.object_store import ObjectStore, StoredObject
from storage.archive.record import SCHEMA
from storage.archive.store_facts import StoreFacts
from storage.errors import Conflict, Corrupt, Misconfigured, NotFound, Refused
from storage.media.inspect import ImageFacts, served_type
from storage.models import Job, Output

MAX_RECORD_BYTES = 16 * 1024 * 1024
_FEW, _MOST_LISTED = 20, 1000


@dataclass(frozen=True, slots=True)
class NewImage:
    """A downloaded image to store. `file` is read from its start."""

    index: int
    file: BinaryIO
    sha256: str
    bytes: int
    facts: ImageFacts
    declared_type: str | None
    seed: str | None
    downloaded_at: int


@dataclass(frozen=True, slots=True)
class WrittenRecord:
    """The key of a record, and its number among its job's, from 1."""

    key: str
    number: int


@dataclass(frozen=True, slots=True)
class Archive:
    """Write and read images and records. Every method raises Unavailable while the store is."""

    store: ObjectStore
    """What is written is read back in full to verify it, unless its `facts` say that the store does so."""
    keys: Keys

    @property
    def facts(self) -> StoreFacts:
        """What the store supports."""
        return self.store.facts

    def store_image(self, job: Job, image: NewImage, *, now: int) -> Output:
        """Store one image and verify it by its digest; idempotent.

        If an earlier try of this submission stored other bytes under its key, those stay and the output is
        theirs: its digest is not the new image's then. A key with {ext} or {sha256} in it may differ between
        two such tries; then both objects stay, and no record names the first.

        Raises Conflict if an object from elsewhere has its key, Corrupt if the verification fails, and
        Refused if the store refuses this object but stores others.
        """
        key = self.keys.image(job, image.index, extension=image.facts.extension, sha256=image.sha256)
        try:
            with self._refusals():
                stored = self.store.put_new(
                    key,
                    image.file,
                    size=image.bytes,
                    sha256=image.sha256,
                    content_type=served_type(image.facts.media_type),
                    metadata=adopt.marks(job, image.index, image.sha256),
                )
        except Conflict:
            return self._stored_before(job, image, key, now)
        if not self._proves(stored, image.sha256):
            stored = self._compare(key, image, Corrupt, "came back with other bytes than were stored")
        return _new_output(job, image, stored, now)

    def find_image(self, job: Job, index: int, *, seed: str | None, now: int) -> Output | None:
        """Return the output of an image that an earlier try of this submission stored; None if there is none.

        For an image that cannot be downloaded any more; it costs one listing for each file extension.
        """
        adopted = adopt.find(self.store, self.keys, job, index)
        if adopted is None:
            return None
        return _adopted_output(job, index, adopted, now, seed=seed)

    def _stored_before(self, job: Job, image: NewImage, key: str, now: int) -> Output:
        """Return the output of what another worker, or a killed one, stored under the key."""
        try:
            return _new_output(job, image, self._compare(key, image, Conflict, "holds another image"), now)
        except Conflict:
            adopted = adopt.adopt(self.store, self.keys, job, image.index, key)
            if adopted is None:
                raise
        return _adopted_output(job, image.index, adopted, now, seed=image.seed)

    def write_record(self, job: Job, document: Mapping[str, Any]) -> WrittenRecord:
        """Write a job's next record, and verify it.

        Nothing is ever overwritten: what a retry found goes into a record of its own, which names the one
        that it supersedes. An existing record of the same outputs stays, and one of fewer of them is
        superseded: both are from a killed worker. Any other one raises Conflict. Raises Refused as
        `store_image` does.
        """
        number = job.records + 1
        while True:
            key = self.keys.record(job, number)
            supersedes = self.keys.record(job, number - 1) if number > 1 else None
            if self._put_record(job, key, {**document, "supersedes": supersedes}):
                return WrittenRecord(key, number)
            ours, theirs = _claims(document), _claims(self._read(key))
            if ours == theirs:
                return WrittenRecord(key, number)
            if not theirs < ours:
                raise Conflict(f"{key} is the record of other outputs.")
            number += 1

    def _put_record(self, job: Job, key: str, document: Mapping[str, Any]) -> bool:
        """Write a record and verify it; returns False if one is there already."""
        body = _to_json(document)
        sha256 = digest_of(body).hexdigest()
        try:
            with self._refusals():
                stored = self.store.put_new(
                    key,
                    io.BytesIO(body),
                    size=len(body),
                    sha256=sha256,
                    content_type="application/json",
                    metadata={adopt.JOB: job.id},
                )
        except Conflict:
            return False
        if not self._proves(stored, sha256) and self.store.read(key, max_bytes=MAX_RECORD_BYTES) != body:
            raise Corrupt(f"{key} came back with other bytes than were stored.")
        return True

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Raise Refused for a write that the store refuses while it stores a probe."""
        try:
            yield
        except Misconfigured as error:
            if not conformance.stores(self.store, self.keys.probes):
                raise
            raise Refused(f"The bucket stores other objects, but not this one. {error}") from error

    def unknown_record(self, newest: Job | None, known: Callable[[str], bool]) -> str | None:
        """Return the key of a record of a job later than `newest` that a ledger does not know, or None.

        `newest` is the last job of that ledger with a record, and `known` returns whether it knows the record
        of the job with an id. It costs one listing, of a few keys unless there are foreign ones.
        """
        after = "" if newest is None else self.keys.record(newest)
        for stored in islice(self.store.list(self.keys.records, after=after, page=_FEW), _MOST_LISTED):
            job_id = self.keys.recorded_job(stored.key)
            if job_id is not None and not known(job_id):
                return stored.key
        return None

    def size(self, key: str) -> int | None:
        """Return how many bytes an object has; None if it is certain that there is none."""
        try:
            return self.store.head(key).bytes
        except NotFound:
            found = self.store.find(key)
            return None if found is None else found.bytes

    def read_record(self, job: Job) -> dict[str, Any]:
        """Return a job's latest record; raises NotFound, or Corrupt if it is not one."""
        return self._read(self.record_key(job))

    def record_key(self, job: Job) -> str:
        """Return the key of a job's latest record, or of its first one if it has none yet."""
        return self.keys.record(job, max(1, job.records))

    def _read(self, key: str) -> dict[str, Any]:
        try:
            document = json.loads(self.store.read(key, max_bytes=MAX_RECORD_BYTES))
        except ValueError as error:
            raise Corrupt(f"{key} is not JSON.") from error
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise Corrupt(f"{key} is not a record.")
        return document

    def _proves(self, stored: StoredObject, sha256: str) -> bool:
        """Return whether the answer to a write is the proof: it names the digest, and the store checks it."""
        return self.facts.trusts_sha256 and stored.sha256 == sha256

    def _compare(self, key: str, image: NewImage, wrong: type[Conflict | Corrupt], what: str) -> StoredObject:
        stored = self.store.head(key)
        sha256, size = stored.sha256, stored.bytes
        if not self.facts.trusts_sha256 or (sha256, size) != (image.sha256, image.bytes):
            # The store's word is enough to agree, but not to contradict: then the bytes decide.
            sha256, size = self.store.digest(key)
        if (sha256, size) != (image.sha256, image.bytes):
            raise wrong(f"{key} {what}: SHA-256 {sha256}, not {image.sha256}.")
        return stored


def _to_json(document: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(document, option=orjson.OPT_INDENT_2)
    except orjson.JSONEncodeError:
        # A gateway may send numbers of more than 64 bits, or half of a surrogate pair, which only an escape
        # can hold.
        return json.dumps(document, indent=2).encode()


def _claims(document: Mapping[str, Any]) -> frozenset[tuple[int, str, str]]:
    # What two records of one job must agree on; times may differ if a worker was killed in between.
    return frozenset(
        (output["index"], output["key"], output["sha256"]) for output in document.get("outputs", [])
    )


def _new_output(job: Job, image: NewImage, stored: StoredObject, now: int) -> Output:
    known = {"seed": image.seed, "downloaded_at": image.downloaded_at}
    return _output(job, image.index, image, stored, now, declared_type=image.declared_type, **known)


def _adopted_output(job: Job, index: int, adopted: adopt.Adopted, now: int, seed: str | None) -> Output:
    # Its download ended just before the object was written; nothing else is known of it.
    downloaded_at = adopted.stored.modified_at
    return _output(job, index, adopted, adopted.stored, now, downloaded_at=downloaded_at, seed=seed)


def _output(
    job: Job, index: int, image: NewImage | adopt.Adopted, stored: StoredObject, now: int, **known: Any
) -> Output:
    return Output(
        job_id=job.id,
        index=index,
        key=stored.key,
        sha256=image.sha256,
        bytes=image.bytes,
        media_type=image.facts.media_type,
        width=image.facts.width,
        height=image.facts.height,
        stored_at=now,
        version_id=stored.version_id,
        **known,
    )
