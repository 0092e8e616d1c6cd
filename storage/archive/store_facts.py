"""Describe what a store was seen to support, and the weaker path that is taken where it does not."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Addressing = Literal["path", "virtual"]
"""Where the bucket is named in a URL: in its path, or in its host (virtual-hosted style)."""

Support = Literal["honoured", "ignored", "refused"]
"""What a store does with an optional header; one that it refuses is not sent any more."""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a store does, as `conformance.probe` found it; before that, what is assumed."""

    addressing: Addressing = "path"
    create_only: Support = "honoured"
    """`If-None-Match: *`: an existing object is not overwritten."""
    sha256: Support = "honoured"
    """`x-amz-checksum-sha256`: bytes with another SHA-256 are refused."""
    returns_sha256: bool = False
    """It returns the SHA-256 of an object, if asked with `x-amz-checksum-mode`."""
    keeps_bytes: bool = True
    """It gave the probe's object back as it was written."""
    checksum_mode: bool = True
    """It accepts `x-amz-checksum-mode` in a read."""
    lists: bool = True
    """The access key may list the bucket (s3:ListBucket). Without it a missing object is a 403."""
    deletes: bool | None = None
    """The access key may delete (s3:DeleteObject); None if it was not tried."""
    probe_key: str | None = None
    """The object that the probe keeps."""

    @property
    def trusts_sha256(self) -> bool:
        """Whether the store verifies what it is sent, so that nothing must be read back."""
        return self.sha256 == "honoured" and self.returns_sha256 and self.keeps_bytes

    @property
    def summary(self) -> str:
        """How objects are written and verified, in a few sentences."""
        where = "host name" if self.addressing == "virtual" else "path"
        return " ".join((f"The bucket is named in the {where} of each URL.", self._written, self._verified))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should know although work continues."""
        return tuple(self._warnings())

    def _warnings(self) -> Iterator[str]:
        if self.create_only != "honoured":
            yield self._written
        if not self.keeps_bytes:
            yield (
                f"The store gave back other bytes than were written to {self.probe_key}, so nothing that it "
                "answers is believed: all is read back, and what is not the same is not archived."
            )
        if not self.lists:
            yield (
                "The access key may not list the bucket (s3:ListBucket), so an image that was stored just "
                "before a crash is not found again once its link has expired, and a lost ledger not noticed."
            )
        if self.deletes is False:
            yield "The access key may not delete (s3:DeleteObject), so outdated thumbnails stay."

    @property
    def _written(self) -> str:
        if self.create_only == "honoured":
            return "Writes are create-only (If-None-Match)."
        return (
            f"The store {self._ignores(self.create_only)} If-None-Match, so each write first checks that its "
            "key is free; two writes of one key at the same moment are not kept apart."
        )

    @property
    def _verified(self) -> str:
        if self.trusts_sha256:
            return "The store verifies the SHA-256 of each object (x-amz-checksum-sha256)."
        if not self.keeps_bytes:
            why = "gave back other bytes than were written"
        elif self.sha256 == "honoured":
            why = "does not return the SHA-256 of an object"
        else:
            why = f"{self._ignores(self.sha256)} x-amz-checksum-sha256"
        return f"The store {why}, so each image and record is read back in full."

    @staticmethod
    def _ignores(support: Support) -> str:
        return "refuses the header" if support == "refused" else "ignores the header"
