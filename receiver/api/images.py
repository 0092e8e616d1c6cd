"""Serve an output's image, its thumbnail and its record under stable links."""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import structlog
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from receiver.api.filenames import file_name
from receiver.api.query_params import ImageQuery
from receiver.errors import ImageMissing, NoSuchThing, NoThumbnail, RecordMissing, UnsatisfiableRange
from receiver.http.bucket_threads import BucketThreads
from receiver.http.ranges import ByteRange, is_not_modified, requested_range
from receiver.http.routing import Answer, Header, Operation
from receiver.missing_images import MissingImages
from receiver.schemas.types import DIGEST_EXAMPLE, OutputName
from receiver.thumbnails.cache import RECIPE, Thumbnails
from storage.archive.object_store import ObjectStore
from storage.archive.s3 import content_disposition
from storage.archive.thumbnails import MEDIA_TYPE
from storage.archive.verified_stream import check_length, verified_chunks
from storage.errors import Corrupt, StorageError
from storage.media.inspect import KINDS, OPAQUE, is_shown, served_type
from storage.models import Output
from storage.search.search import Search, SearchHit

log = structlog.get_logger("darkroom.links")

IMAGES = (*(kind.media_type for kind in KINDS if not kind.opaque), OPAQUE)
KEPT = {
    # A browser caches it and revalidates each time, so that it is not shown after signing out. What an id
    # leads to never changes, so the response is a short 304. For no page of another site.
    "cache-control": "private, no-cache",
    "cross-origin-resource-policy": "same-origin",
}

ETAG_VALUE = Annotated[str, Field(examples=[f'"{DIGEST_EXAMPLE}"'])]
ETAG = Header("ETag", "The SHA-256 of the image, quoted; of a thumbnail a weak one.")
NAMED = Header("Content-Disposition", "A file name made of the prompt.")
KEEP = Header("Cache-Control", "It may be cached, and must be revalidated with its ETag.")
IF_NONE_MATCH = Header("If-None-Match", "ETags of what you have already, for a 304.", ETAG_VALUE)
RANGE = Header(
    "Range",
    "One range of bytes, with `?stream=1`: `bytes=0-99`, `bytes=100-` or `bytes=-50`.",
    Annotated[str, Field(examples=["bytes=0-1023"])],
)
IF_RANGE = Header(
    "If-Range", "The ETag of what you have a part of: if it differs, the whole image is sent.", ETAG_VALUE
)
PART = Header("Content-Range", "Which bytes these are.")


@dataclass(frozen=True, slots=True)
class Links:
    """The routes below one output that lead into the bucket."""

    search: Search
    store: ObjectStore
    missing: MissingImages
    thumbnails: Thumbnails
    bucket: BucketThreads
    lifetime_s: int
    """How long a presigned link works."""

    @Operation(
        "GET /v1/outputs/{id}/image",
        "fetch_image",
        path={"id": OutputName},
        headers=(IF_NONE_MATCH, RANGE, IF_RANGE),
        answers={
            307: Answer(None, "A fresh link to the image.", (Header("Location", "A presigned link."),)),
            200: Answer(bytes, "The image, with `?stream=1`.", (ETAG, NAMED, KEEP), IMAGES),
            206: Answer(bytes, "The requested range.", (ETAG, NAMED, KEEP, PART), IMAGES),
            304: Answer(None, "Not modified.", (ETAG, KEEP)),
        },
        errors=(UnsatisfiableRange, ImageMissing),
    )
    async def image(self, request: Request, query: ImageQuery) -> Response:
        """Fetch an output's image: a redirect to a fresh presigned link, or the image with `?stream=1`."""
        found = await self._find(request)
        if not query.stream:
            # In a bucket thread, because it may have to request fresh credentials.
            link = await self.bucket.run(partial(self._presigned, found, request, query))
            return RedirectResponse(link, 307)
        output = found.output
        etag = f'"{output.sha256}"'
        headers = KEPT | {"etag": etag, "accept-ranges": "bytes"}
        if is_not_modified(request.headers, etag):
            return Response(status_code=304, headers=headers)
        # What may be shown is decided here and not by the ledger, which may be rebuilt from any bucket.
        headers["content-type"] = served_type(output.media_type)
        headers["content-disposition"] = _disposition(found, _kept(output, query))
        # Ranges are for GET only: RFC 9110, 14.2.
        head = request.method == "HEAD"
        part = None if head else requested_range(request.headers, length=output.bytes, etag=etag)
        headers["content-length"] = str(part.length if part else output.bytes)
        if part is not None:
            headers["content-range"] = part.content_range
        if head:
            await self.bucket.run(partial(self.missing.check, output))
            return Response(headers=headers)
        return await self.bucket.run(partial(self._streamed, output, part, headers))

    @Operation(
        "GET /v1/outputs/{id}/thumbnail",
        "fetch_thumbnail",
        path={"id": OutputName},
        headers=(IF_NONE_MATCH,),
        answers={
            200: Answer(bytes, "The thumbnail.", (ETAG, NAMED, KEEP), (MEDIA_TYPE,)),
            304: Answer(None, "Not modified.", (ETAG, KEEP)),
        },
        errors=(NoThumbnail, ImageMissing),
    )
    async def thumbnail(self, request: Request) -> Response:
        """Fetch an output's thumbnail: WebP, 512 pixels at the longer side, made when first asked for.

        It is upright, in sRGB and without metadata; of an animation it shows the first frame.
        """
        found = await self._find(request)
        # Weak, because another version of the encoder may make other bytes of the same image.
        etag = f'W/"{found.output.sha256}.{RECIPE}"'
        headers = KEPT | {"etag": etag}
        if is_not_modified(request.headers, etag):
            return Response(status_code=304, headers=headers)
        made = await self.thumbnails.get(found.output)
        headers["content-disposition"] = _disposition(found, "inline", ending="-thumbnail.webp")
        return Response(made, headers=headers, media_type=MEDIA_TYPE)

    @Operation(
        "GET /v1/outputs/{id}/record",
        "show_record",
        path={"id": OutputName},
        answers={200: Answer(dict[str, Any], "The record, as it is in the bucket.")},
        errors=(RecordMissing,),
    )
    async def record(self, request: Request) -> Response:
        """Show the record of an output's job, as it is in the bucket; of several the newest one.

        A job has none until its images are archived.
        """
        job = (await self._find(request)).job
        if not job.records:
            raise NoSuchThing(f"Job {job.id} has no record yet; it gets one when its images are archived.")
        return JSONResponse(await self.bucket.run(partial(self.missing.read_record, job)))

    async def _find(self, request: Request) -> SearchHit:
        return await run_in_threadpool(self.search.output, request.path_params["id"])

    def _presigned(self, found: SearchHit, request: Request, query: ImageQuery) -> str:
        with suppress(StorageError):
            # A link to nothing would end in the store's own 404. A store that is away here may not be there.
            self.missing.check(found.output)
        name = file_name(found.job, found.output)
        return self.store.presign(
            found.output.key,
            expires_s=self.lifetime_s,
            filename=name.name,
            plain_name=name.plain,
            content_type=served_type(found.output.media_type),
            disposition=_kept(found.output, query),
            method="HEAD" if request.method == "HEAD" else "GET",
        )

    def _streamed(self, output: Output, part: ByteRange | None, headers: Mapping[str, str]) -> Response:
        opened = ExitStack()
        asked = None if part is None else part.range
        with opened:
            with self.missing.explained(output):
                stream = opened.enter_context(self.store.stream(output.key, byte_range=asked))
                check_length(stream, output, part.length if part else output.bytes)
            if output.missing_since is not None:
                self.missing.check(output)
            whole = part is None or part.length == output.bytes
            chunks = verified_chunks(stream, output) if whole else stream.chunks
            status = 206 if part else 200
            return _Streamed(output, opened.pop_all(), self.bucket.each(chunks), status, headers)


class _Streamed(StreamingResponse):
    """Stream an image from the bucket, and close what was opened for it."""

    def __init__(self, output: Output, opened: ExitStack, *streamed: Any) -> None:
        """`streamed`: chunks, status and headers."""
        super().__init__(*streamed)
        self._output = output
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._opened:
            try:
                await super().__call__(scope, receive, send)
            except StorageError as error:
                # The response stays incomplete, and so the server breaks the connection.
                damaged = isinstance(error, Corrupt)
                event = "an archived image is damaged" if damaged else "the bucket broke off an image"
                log.error(event, output=self._output.id, why=str(error))


def _kept(output: Output, query: ImageQuery) -> Literal["attachment", "inline"]:
    return "attachment" if query.download or not is_shown(output.media_type) else "inline"


def _disposition(found: SearchHit, kind: str, *, ending: str | None = None) -> str:
    name = file_name(found.job, found.output, ending=ending)
    return content_disposition(kind, name.name, name.plain)
