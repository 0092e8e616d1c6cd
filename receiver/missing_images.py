"""Tell when an archived image or record is missing from the bucket, or has another length; note it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from receiver.errors import ImageMissing, RecordMissing
from storage.archive.archive import Archive
from storage.errors import Corrupt, NotFound, Unavailable
from storage.ledger.ledger import Ledger
from storage.models import Job, Output, rfc3339

log = structlog.get_logger("darkroom.missing")


@dataclass(frozen=True, slots=True)
class MissingImages:
    """Compares what the ledger says of an image with the bucket. Thread-safe.

    Only a listing proves that an object is not there: a store that is away, refuses, or hides what is
    missing (403 without the right to list) is Unavailable or Misconfigured, as everywhere.
    """

    archive: Archive
    ledger: Ledger

    def check(self, output: Output) -> None:
        """Raise ImageMissing if the bucket certainly does not have an image as it was archived."""
        try:
            found = self.archive.size(output.key)
        except NotFound as error:
            raise Unavailable(str(error)) from error
        if found == output.bytes:
            if output.missing_since is not None:
                self.ledger.note_found(output)
                log.info("an archived image is back", output=output.id, key=output.key)
            return
        if self.ledger.note_missing(output):
            log.error("an archived image is missing", output=output.id, key=output.key, bytes_found=found)
        raise ImageMissing(
            _sentence(output, found),
            found=found,
            facts={
                "key": output.key,
                "sha256": output.sha256,
                "bytes": output.bytes,
                "stored_at": rfc3339(output.stored_at),
            }
            | ({} if found is None else {"bytes_found": found}),
        )

    @contextmanager
    def explained(self, output: Output) -> Iterator[None]:
        """Raise ImageMissing in place of an error in the block, if that is why an image cannot be read."""
        try:
            yield
        except (NotFound, Corrupt) as error:
            self.check(output)
            raise Unavailable(str(error)) from error

    def read_record(self, job: Job) -> dict[str, Any]:
        """Read a job's newest record; raise RecordMissing if it is certainly not in the bucket."""
        try:
            return self.archive.read_record(job)
        except NotFound as error:
            key = self.archive.record_key(job)
            if self.archive.size(key) is not None:
                raise Unavailable(str(error)) from error
            log.error("a record is missing", job=job.id, key=key)
            raise RecordMissing(
                f"The record of this job is no longer in the bucket, where it was written as {key}. "
                "Fix: restore the object from a backup of the bucket.",
                facts={"key": key},
            ) from error


def _sentence(output: Output, found: int | None) -> str:
    now = "is no longer in the bucket" if found is None else f"has {found} bytes in the bucket now"
    fix = "Fix: retry its job, which downloads it again at no cost while the gateway has it, or restore"
    if found is not None:
        fix = "Nothing is written over. Fix: delete that object and retry its job, or restore"
    return (
        f"The image {now}: {output.key} was archived at {rfc3339(output.stored_at)} with {output.bytes} "
        f"bytes and SHA-256 {output.sha256}. {fix} the object from a backup."
    )
