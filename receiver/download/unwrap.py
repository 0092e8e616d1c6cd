"""Undo what lies around an image: content encodings, announced or not, base64, and bytes before its start.

The bytes decide and not the headers. No encoding is asked for, but stores repeat the header of an upload
(`aws-chunked`), and servers compress what they keep, or what they do not look at.
"""

import base64
import binascii
import re
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING or sys.version_info < (3, 14):
    from backports import zstd as zstd
else:
    from compression import zstd as zstd

STEP = 64 * 1024
"""Most bytes of one piece, so that no bomb goes off in memory before the limit is seen."""
MAX_WINDOW_LOG = 27
"""128 MiB: the most memory that a zstd frame may ask for, as RFC 8878 advises decoders to bound it."""
MAX_LAYERS = 3
MAX_STREAMS = 4096
"""Of gzip or zstd, one behind the other: `bgzip` begins one every 64 KiB."""
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
HEAD_BYTES = 4096

Unwrap = Callable[[BinaryIO], Iterator[bytes]]
"""Yields what is inside of a file, in pieces. Raises NotWrapped."""

_URL_SAFE = str.maketrans("-_", "+/")
_BEFORE = re.compile(rb"(?:\xef\xbb\xbf|[ \t\r\n]){1,64}")
_BASE64 = re.compile(
    rb"(?:data:image/[\w.+-]{1,40};base64,)?"
    rb"(?:iVBORw0KGgo|/9j/|UklGR|AAAA|R0lGOD)[A-Za-z0-9+/=\r\n]+"
)


class NotWrapped(ValueError):
    """The bytes are not encoded as was thought, or end in the middle."""


def find(head: bytes, announced: list[str]) -> tuple[str, Unwrap] | None:
    """Return what lies around bytes that begin with `head` and are no image: its name, and what undoes it.

    `announced` are the tokens of Content-Encoding, the last one outermost; the one that is used is removed.
    Unknown tokens mean nothing.
    """
    if head.startswith(GZIP_MAGIC):
        name = "gzip"
    elif head.startswith(ZSTD_MAGIC):
        name = "zstd"
    elif (before := _BEFORE.match(head)) is not None and not announced:
        return f"{before.end()} bytes", lambda file: _pieces(file, before.end())
    elif _BASE64.match(head):
        return "base64", _base64
    else:
        name = next((token for token in reversed(announced) if token in CODINGS), "")
    if name in announced:
        del announced[len(announced) - 1 - announced[::-1].index(name) :]
    return (name, CODINGS[name]) if name else None


def tokens(header: str) -> list[str]:
    """Parse Content-Encoding: https://www.rfc-editor.org/rfc/rfc9110#section-8.4."""
    names = [token.strip().lower().removeprefix("x-") for token in header.split(",")]
    return [name for name in names if name in CODINGS][-MAX_LAYERS:]


def data(head: str, content: str) -> bytes:
    """Decode the content of a data URI: https://www.rfc-editor.org/rfc/rfc2397. Raises NotWrapped."""
    if not head.endswith(";base64"):
        return unquote_to_bytes(content)
    plain = content.translate(_URL_SAFE).strip().rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4))
    except ValueError as error:
        raise NotWrapped(str(error)) from error


def _pieces(file: BinaryIO, start: int = 0) -> Iterator[bytes]:
    file.seek(start)
    while piece := file.read(STEP):
        yield piece


def _inflate(file: BinaryIO, bits: int, start: int = 0) -> Generator[bytes, None, int]:
    """Yield what is inside of one stream; return where it ends."""
    inflater, at = zlib.decompressobj(bits), start
    try:
        for piece in _pieces(file, start):
            at += len(piece)
            yield inflater.decompress(piece, STEP)
            while inflater.unconsumed_tail:
                yield inflater.decompress(inflater.unconsumed_tail, STEP)
            if inflater.eof:
                return at - len(inflater.unused_data)
        yield inflater.flush(STEP)
    except zlib.error as error:
        raise NotWrapped(str(error)) from error
    if not inflater.eof:
        raise NotWrapped("it ends in the middle")
    return at


def _gzip(file: BinaryIO) -> Iterator[bytes]:
    return _one_by_one(file, GZIP_MAGIC, lambda start: _inflate(file, 31, start))


def _one_by_one(
    file: BinaryIO, magic: bytes, decode: Callable[[int], Generator[bytes, None, int]]
) -> Iterator[bytes]:
    """Yield what is inside of a stream, and of all that stand behind it: they are one content.

    https://www.rfc-editor.org/rfc/rfc1952#section-2.2 and https://www.rfc-editor.org/rfc/rfc8878#section-3.1
    """
    at = 0
    for _ in range(MAX_STREAMS):
        at = yield from decode(at)
        file.seek(at)
        if file.read(len(magic)) != magic:
            return
    raise NotWrapped("it has too many streams")


def _deflate(file: BinaryIO) -> Iterator[bytes]:
    # Meant is zlib's format, but some send the bare data: RFC 9110, 8.4.1.2.
    file.seek(0)
    head = file.read(2)
    is_zlib = len(head) == 2 and head[0] & 15 == 8 and int.from_bytes(head) % 31 == 0
    return _inflate(file, 15 if is_zlib else -15)


def _brotli(file: BinaryIO) -> Iterator[bytes]:
    import brotli

    decoder = brotli.Decompressor()
    try:
        for piece in _pieces(file):
            yield decoder.process(piece, output_buffer_limit=STEP)
            while not decoder.can_accept_more_data() and not decoder.is_finished():
                yield decoder.process(b"", output_buffer_limit=STEP)
    except brotli.error as error:
        raise NotWrapped(str(error)) from error
    if not decoder.is_finished():
        raise NotWrapped("it ends in the middle")


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    return _one_by_one(file, ZSTD_MAGIC, lambda start: _frame(file, start))


def _frame(file: BinaryIO, start: int) -> Generator[bytes, None, int]:
    decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG})
    at = start
    try:
        for piece in _pieces(file, start):
            at += len(piece)
            yield decoder.decompress(piece, STEP)
            while not decoder.needs_input and not decoder.eof:
                yield decoder.decompress(b"", STEP)
            if decoder.eof:
                return at - len(decoder.unused_data)
    except zstd.ZstdError as error:
        raise NotWrapped(str(error)) from error
    raise NotWrapped("it ends in the middle")


def _base64(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    before, sign, _ = file.read(HEAD_BYTES).partition(b"base64,")
    left = b""
    try:
        for piece in _pieces(file, len(before + sign) if sign else 0):
            text = left + piece.translate(None, b" \t\r\n")
            whole = len(text) // 4 * 4
            left = text[whole:]
            yield base64.b64decode(text[:whole], validate=True)
        yield base64.b64decode(left, validate=True)
    except binascii.Error as error:
        raise NotWrapped(str(error)) from error


CODINGS: dict[str, Unwrap] = {"gzip": _gzip, "deflate": _deflate, "br": _brotli, "zstd": _zstd}
"""The content encodings: https://www.iana.org/assignments/http-parameters."""
