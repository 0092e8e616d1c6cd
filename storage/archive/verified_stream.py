"""An archived image on its way out: what the bucket holds, held to what was archived."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from storage.archive.object_store import ObjectStream
from storage.errors import Corrupt
from storage.models import Output


def check_length(stream: ObjectStream, output: Output, length: int) -> None:
    """Raise Corrupt where the store has an object of another size, or gives more or less than `length`."""
    if (stream.object.bytes, stream.length) != (output.bytes, length):
        raise Corrupt(
            f"{output.key} has {stream.object.bytes} bytes, of which {stream.length} came; "
            f"{output.bytes} were archived, and {length} asked for."
        )


def verified_chunks(stream: ObjectStream, output: Output) -> Iterator[bytes]:
    """The chunks of a whole image, the last of them only once the digest of all was found to be right.

    So whoever passes them on never ends as if wrong bytes were complete. Raises Corrupt.
    """
    digest, last = hashlib.sha256(), b""
    for chunk in stream.chunks:
        if last:
            yield last
        digest.update(chunk)
        last = chunk
    if digest.hexdigest() != output.sha256:
        raise Corrupt(f"{output.key} has SHA-256 {digest.hexdigest()}; {output.sha256} was archived.")
    yield last
