"""Serve static files under URLs with their digest, so that browsers may cache them for ever."""

import hashlib
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from receiver.errors import NoSuchThing

KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
KEPT = "public, max-age=31536000, immutable"


class Assets:
    """The files in `static/`, read once."""

    def __init__(self, prefix: str) -> None:
        self._urls: dict[str, str] = {}
        self._files: dict[str, tuple[bytes, str]] = {}
        for file in files("receiver.gallery").joinpath("static").iterdir():
            stem, dot, ending = file.name.rpartition(".")
            if (kind := KINDS.get(dot + ending)) is None:
                continue
            content = file.read_bytes()
            served = f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{ending}"
            self._urls[file.name] = f"{prefix}/static/{served}"
            self._files[served] = content, kind

    def url(self, name: str) -> str:
        """Return the URL of a file; raises KeyError if there is none of this name."""
        return self._urls[name]

    async def serve(self, request: Request) -> Response:
        """Return a file; 404 for one of another version."""
        found = self._files.get(request.path_params["name"])
        if found is None:
            raise NoSuchThing("There is no such file; load the page again.")
        content, kind = found
        return Response(content, headers={"cache-control": KEPT, "content-type": kind})
