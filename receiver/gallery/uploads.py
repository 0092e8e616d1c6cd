"""Parse a multipart form with one file, within limits, and return its SHA-256. The file is not kept."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from receiver.errors import BodyTooLarge, InvalidRequest, TooSlow
from receiver.http.limits import refuse_announced
from receiver.http.sessions import CSRF_FIELD

FILE_FIELD = "file"
MAX_AROUND = 64 * 1024
"""Bytes that a form may have besides its file."""
MAX_FIELDS = 10
CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A form with one file: its CSRF token, the file's name, and its digest in hex (None without a file)."""

    form_token: str
    file_name: str
    sha256: str | None


async def read_upload(request: Request, *, max_bytes: int, within_s: float) -> Upload:
    """Parse a form with one file of at most `max_bytes`; raise InvalidRequest, BodyTooLarge or TooSlow."""
    refuse_announced(request, max_bytes + MAX_AROUND)
    try:
        async with asyncio.timeout(within_s):
            form = await _form(request, max_bytes)
    except TimeoutError:
        raise TooSlow(f"The file must arrive within {within_s:g} seconds.") from None
    except (MultiPartException, KeyError) as error:
        message = f"is not sent as a multipart/form-data form: {error}"
        raise InvalidRequest([{"field": FILE_FIELD, "message": message}]) from None
    token, file = form.get(CSRF_FIELD), form.get(FILE_FIELD)
    form_token = token if isinstance(token, str) else ""
    if not isinstance(file, UploadFile) or not file.size:
        return Upload(form_token, "", None)
    digest = hashlib.sha256()
    while chunk := await file.read(CHUNK_BYTES):
        digest.update(chunk)
    await file.close()
    return Upload(form_token, file.filename or "", digest.hexdigest())


async def _form(request: Request, max_bytes: int) -> FormData:
    parser = MultiPartParser(
        request.headers,
        _bounded(request, max_bytes + MAX_AROUND),
        max_files=1,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_AROUND,
    )
    return await parser.parse()


async def _bounded(request: Request, limit: int) -> AsyncGenerator[bytes]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise BodyTooLarge(f"The file is larger than any image here: {limit} bytes at most.")
        yield chunk
