"""Undo what lies around an image: encodings, announced or not, base64, multipart, and bytes before its start.

The bytes decide and not the headers. No encoding is asked for, but stores repeat the header of an upload
(`aws-chunked`), and servers compress what they keep, or what they do not look at.
"""

import base64
import binascii
import re
import sys
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote_to_bytes

from receiver.download import multipart
from storage.media.inline import is_base64_image
from storage.media.inspect import ON_REQUEST, is_image

if TYPE_CHECKING or sys.version_info < (3, 14):
    from backports import zstd as zstd
else:
    from compression import zstd as zstd

STEP = 64 * 1024
"""Most bytes of one piece, so that no bomb goes off in memory before the limit is seen."""
MAX_WINDOW_LOG = 23
"""8 MiB: the most that a zstd frame may ask for on the web: https://www.rfc-editor.org/rfc/rfc9659."""
MAX_LAYERS = 3
MAX_STREAMS = 4096
"""Of gzip or zstd, one behind the other: `bgzip` begins one every 64 KiB."""
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
HEAD_BYTES = 4096

Unwrap = Callable[[BinaryIO], Iterator[bytes]]
"""Yields what is inside of a file, in pieces. Raises NotWrapped."""

_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_IMAGE_PART = re.compile(rb"(?:^|\n)content-type:\s{0,8}image/", re.IGNORECASE)
_BEFORE = re.compile(rb"(?:\xef\xbb\xbf|[ \t\r\n]){1,64}")
_DATA_URI = re.compile(rb"(?:data:[\w.+/-]{0,80}(?:;[\w.=-]{1,40}){0,4};base64,)?")


class NotWrapped(ValueError):
    """The bytes are not encoded as was thought, or end in the middle."""


def find(head: bytes, announced: list[str]) -> tuple[str, Unwrap] | None:
    """Return what lies around bytes that begin with `head` and are no image: its name, and what undoes it.

    `announced` are the tokens of Content-Encoding, the last one outermost; the one that is used is removed.
    Unknown tokens mean nothing.
    """
    if multipart.is_multipart(head):
        return "multipart", _only_image
    if head.startswith(GZIP_MAGIC):
        name = "gzip"
    elif head.startswith(ZSTD_MAGIC):
        name = "zstd"
    elif (before := _BEFORE.match(head)) is not None and not announced:
        return f"{before.end()} bytes", lambda file: _pieces(file, before.end())
    elif is_base64_image(_DATA_URI.sub(b"", head, count=1)):
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


def data(uri: str, start: int, *, is_base64: bool) -> Iterator[bytes]:
    """Yield the content of a data URI, which starts at `start`, decoded, in pieces.

    https://www.rfc-editor.org/rfc/rfc2397. In pieces, because it may be as long as all the limits allow.
    Raises NotWrapped.
    """
    pieces = (uri[at : at + STEP] for at in range(start, len(uri), STEP))
    plain = _unquoted(pieces)
    return _from_base64(plain) if is_base64 else plain


def _unquoted(pieces: Iterable[str]) -> Iterator[bytes]:
    left = ""
    for piece in pieces:
        text = left + piece
        # An escape must not be cut apart.
        cut = text.find("%", max(0, len(text) - 2))
        left = text[cut:] if cut >= 0 else ""
        yield unquote_to_bytes(text[:cut] if cut >= 0 else text)
    yield unquote_to_bytes(left)


def _from_base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what is in base64, in either alphabet, with or without what fills it up at its end."""
    left, ended = b"", False
    try:
        for piece in pieces:
            text = piece.translate(_URL_SAFE, b" \t\r\n")
            letters = text.rstrip(b"=")
            if ended and letters:
                raise NotWrapped("something stands behind its end")
            ended = ended or len(letters) < len(text)
            text = left + letters
            whole = len(text) // 4 * 4
            left = text[whole:]
            yield base64.b64decode(text[:whole], validate=True)
        yield base64.b64decode(left + b"=" * (-len(left) % 4), validate=True)
    except binascii.Error as error:
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
        wide = f"it asks for a window of more than {2**MAX_WINDOW_LOG} bytes, which RFC 9659 forbids"
        raise NotWrapped(wide if "memory" in str(error) else str(error)) from error
    raise NotWrapped("it ends in the middle")


def _base64(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    before, sign, _ = file.read(HEAD_BYTES).partition(b"base64,")
    return _from_base64(_pieces(file, len(before + sign) if sign else 0))


def _only_image(file: BinaryIO) -> Iterator[bytes]:
    """Yield the one part of a multipart body that is an image, or says so."""
    try:
        found = [part for part in multipart.parts(file) if _is_image_part(file, part)]
    except multipart.NotMultipart as error:
        raise NotWrapped(str(error)) from error
    if len(found) != 1:
        many = f"{len(found)} of its parts are images, and which one is meant is not said"
        raise NotWrapped(many if found else "none of its parts is an image")
    (part,) = found
    for at in range(part.start, part.end, STEP):
        file.seek(at)
        yield file.read(min(STEP, part.end - at))


def _is_image_part(file: BinaryIO, part: multipart.Part) -> bool:
    file.seek(part.start)
    head = file.read(min(HEAD_BYTES, part.end - part.start))
    return is_image(head, also=ON_REQUEST) or _IMAGE_PART.search(part.head) is not None


CODINGS: dict[str, Unwrap] = {"gzip": _gzip, "deflate": _deflate, "br": _brotli, "zstd": _zstd}
"""The content encodings: https://www.iana.org/assignments/http-parameters."""
ENDED = frozenset({*CODINGS, "multipart"})
"""What has an end of its own, so that all that is in it came."""
