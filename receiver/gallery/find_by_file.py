"""Serve the page that finds a picture by its file: compare SHA-256 digests with the archive."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from receiver.errors import InvalidRequest
from receiver.gallery.page import PageHandler, PageRequest
from receiver.gallery.uploads import read_upload
from receiver.http.sessions import Session
from storage.search.filters import SearchFilter
from storage.search.search import Search

MAX_NAME = 200
MOST = 50
"""How many outputs with the same bytes are shown; more than one is rare."""
DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FindByFile:
    """The page `/find`. `max_bytes`: as large as an image in the archive can be."""

    frame: PageHandler
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

    async def take(self, request: Request, session: Session) -> Response:
        """Hash an uploaded file, for browsers that compute no digest themselves. It is not kept."""
        within_s = self.frame.admission.limits.body_timeout_s
        upload = await read_upload(request, max_bytes=self.max_bytes, within_s=within_s)
        self.frame.check_form_token(session, upload.form_token)
        shown = {"sha256": upload.sha256, "name": upload.file_name[:MAX_NAME]} if upload.sha256 else {}
        return RedirectResponse(f"/find?{urlencode(shown)}", 303, {"cache-control": "no-store"})
