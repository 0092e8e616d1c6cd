"""Verify length and SHA-256 of an archived image while it is streamed."""

import hashlib
from collections.abc import Iterator

from storage.archive.object_store import ObjectStream
from storage.errors import Corrupt
from storage.models import Output


def check_length(stream: ObjectStream, output: Output, length: int) -> None:
    """Raise Corrupt if the object has another size, or the stream is not of `length` bytes."""
    if (stream.object.bytes, stream.length) != (output.bytes, length):
        raise Corrupt(
            f"{output.key} has {stream.object.bytes} bytes, of which {stream.length} came; "
            f"{output.bytes} were archived, and {length} asked for."
        )


def verified_chunks(stream: ObjectStream, output: Output) -> Iterator[bytes]:
    """Yield the chunks of a whole image, the last of them only after the digest of all was verified.

    So a response never completes with wrong bytes. Raises Corrupt.
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
