"""Serve the page that finds a picture by its file: compare SHA-256 digests with the archive."""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from receiver.errors import BodyTooLarge, InvalidRequest, TooSlow
from receiver.gallery.page import PageRequest
from receiver.http.limits import BODY_TIMEOUT, refuse_announced
from receiver.http.sessions import CSRF_FIELD
from storage.search.filters import SearchFilter
from storage.search.search import Search

MAX_NAME = 200
MOST = 50
"""How many outputs with the same bytes are shown; more than one is rare."""
DIGEST = re.compile("[0-9a-f]{64}")
FILE_FIELD = "file"
MAX_AROUND = 64 * 1024
"""Bytes that a form may have besides its file."""
MAX_FIELDS = 10
CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FindByFile:
    """The page `/find`. `max_bytes`: as large as an image in the archive can be."""

    search: Search
    max_bytes: int

    def show(self, visit: PageRequest) -> Response:
        """Show the outputs that have exactly these bytes, or ask for a file."""
        digest, name = (visit.given("sha256") or "").lower(), visit.given("name") or ""
        if not digest:
            return visit.page("find.html", digest="", name="", found=[])
        if not DIGEST.fullmatch(digest):
            raise InvalidRequest([{"field": "sha256", "message": "must be the 64 digits of a SHA-256"}])
        found = self.search.outputs(SearchFilter(sha256=digest), limit=MOST).rows
        return visit.page("find.html", digest=digest, name=name[:MAX_NAME], found=found)

    async def take(self, visit: PageRequest) -> Response:
        """Hash an uploaded file, for browsers that compute no digest themselves. It is not kept."""
        within_s = visit.frame.admission.limits.body_timeout_s
        upload = await read_upload(visit.request, max_bytes=self.max_bytes, within_s=within_s)
        visit.frame.check_form_token(visit.session, upload.form_token)
        shown = {"sha256": upload.sha256, "name": upload.file_name[:MAX_NAME]} if upload.sha256 else {}
        return RedirectResponse(f"/find?{urlencode(shown)}", 303, {"cache-control": "no-store"})


@dataclass(frozen=True, slots=True)
class Upload:
    """A form with one file: its CSRF token, the file's name, and its digest in hex (None without a file)."""

    form_token: str
    file_name: str
    sha256: str | None


async def read_upload(request: Request, *, max_bytes: int, within_s: float) -> Upload:
    """Parse a form with one file of at most `max_bytes`; raise InvalidRequest, BodyTooLarge or TooSlow."""
    refuse_announced(request.headers, max_bytes + MAX_AROUND)
    try:
        async with asyncio.timeout(within_s):
            form = await _form(request, max_bytes)
    except TimeoutError:
        raise TooSlow(f"The file must be here within {within_s:g} seconds ({BODY_TIMEOUT}).") from None
    except (MultiPartException, KeyError):
        message = "must be sent alone in a form of the type multipart/form-data, as the page sends it"
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
