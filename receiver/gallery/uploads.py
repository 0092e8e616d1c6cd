"""A file that a form sends, hashed as it comes and not kept: neither in memory nor on disk."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from receiver.errors import BodyTooLarge, InvalidRequest, TooSlow
from receiver.http.body import refuse_announced
from receiver.http.sessions import CSRF_FIELD

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FILE_FIELD = "file"
MAX_AROUND = 64 * 1024
"""What a form may have besides the bytes of the file."""
MAX_PARTS = 10
"""How many fields a form may have; ours has two."""
MAX_FIELD = 2048
"""The most of a field that is no file, and of a header."""


class Upload:
    """A form with one file.

    `form_token` is what the form carries against other sites,
    `sha256` the file's digest: None without a file.
    """

    def __init__(self) -> None:
        self.form_token = ""
        self.file_name = ""
        self.size = 0
        """Bytes of the file so far."""
        self._parts = 0
        self._digest = hashlib.sha256()
        self._header = b""
        self._value = b""
        self._name = ""
        self._text = b""

    @property
    def sha256(self) -> str | None:
        """The digest of the file in hex; None if none was chosen."""
        return self._digest.hexdigest() if self.size else None

    def callbacks(self) -> MultipartCallbacks:
        """What the parser of the form tells as it goes."""
        return {
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_part_begin": self._on_part_begin,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part_end,
        }

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BodyTooLarge(f"This form has one file; it came with more than {MAX_PARTS} fields.")

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header + data[start:end])[:MAX_FIELD]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value = (self._value + data[start:end])[:MAX_FIELD]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            if self._name == FILE_FIELD:
                self.file_name = options.get(b"filename", b"").decode("utf-8", "replace")
        self._header = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE_FIELD:
            self._digest.update(memoryview(data)[start:end])
            self.size += end - start
        elif self._name == CSRF_FIELD:
            self._text = (self._text + data[start:end])[:MAX_FIELD]

    def _on_part_end(self) -> None:
        if self._name == CSRF_FIELD:
            self.form_token = self._text.decode("utf-8", "replace")
        self._name, self._text = "", b""


async def read_upload(request: Request, *, max_bytes: int, within_s: float) -> Upload:
    """Read a form with one file of at most `max_bytes`; raise InvalidRequest, BodyTooLarge or TooSlow."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidRequest([{"field": "Content-Type", "message": "must be multipart/form-data"}])
    limit = max_bytes + MAX_AROUND
    refuse_announced(request, limit)
    upload, came = Upload(), 0
    try:
        parser = MultipartParser(options[b"boundary"], upload.callbacks())
        async with asyncio.timeout(within_s):
            async for chunk in request.stream():
                came += len(chunk)
                if came > limit:
                    raise BodyTooLarge(f"No image here has more than {max_bytes} bytes.")
                parser.write(chunk)
                if came - upload.size > MAX_AROUND:
                    raise BodyTooLarge(f"Besides its file this form may have {MAX_AROUND} bytes.")
        parser.finalize()
    except TimeoutError:
        raise TooSlow(f"The file must be here within {within_s:g} seconds.") from None
    except FormParserError:
        raise InvalidRequest([{"field": FILE_FIELD, "message": "did not come as a form sends it"}]) from None
    return upload
