"""Serve images, whole or broken as the job's faults say."""

import asyncio
import gzip
import random
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse

from receiver.sandbox.core.broken_responses import Cut, Reset, Stalled, WrongLength
from receiver.sandbox.core.jobs import Jobs, SandboxJob
from receiver.sandbox.core.lifecycle import Sandbox
from receiver.sandbox.core.pictures import Spec

HTML = b"<!doctype html><title>Just a moment</title><p>Checking your browser before you can go on.</p>\n"
PAD_CHUNK = 1024 * 1024
DRIPS = 20
"""Pieces of an image that comes slowly."""
_END = 12
"""Length of IEND, the last chunk of a PNG file."""
_FRAME = 12
"""Length, type and checksum around the content of a PNG chunk."""


async def image(request: Request) -> Response:
    """`GET /images/{job}/{n}.png`: needs no key, as on the gateways' own delivery networks."""
    sandbox: Sandbox = request.app.state.sandbox
    found = find(sandbox, request)
    if isinstance(found, Response):
        return found
    job, spec = found
    picture = await asyncio.wrap_future(sandbox.studio.order(spec, now=True))
    return _serve(sandbox.jobs, job, spec, picture)


async def upload(request: Request) -> Response:
    """`GET /uploads/{id}`: a file that was uploaded, for submissions that name it."""
    sandbox: Sandbox = request.app.state.sandbox
    data = sandbox.uploads.get(request.path_params["id"])
    return PlainTextResponse("Not found", 404) if data is None else Response(data)


def find(sandbox: Sandbox, request: Request) -> tuple[SandboxJob, Spec] | Response:
    """Return the job and image of a link, or the response of a dead link."""
    job = sandbox.jobs.get(request.path_params["job"])
    name = re.fullmatch(r"(\d{1,3})\.(png|jpg)", request.path_params["name"])
    if job is None or name is None or job.status != "COMPLETED" or sandbox.expired(job):
        return PlainTextResponse("Not found", 404)
    spec = next((s for s in job.specs if s.index == int(name[1]) and s.extension == name[2]), None)
    if spec is None or ("partial_images" in job.faults and spec is job.specs[-1]):
        return PlainTextResponse("Not found", 404)
    issue = request.query_params.get("link", "1")
    link = int(issue) if issue.isdecimal() and len(issue) < 6 else 0
    if job.dead(link):
        job.link_tried = job.link_tried or link == job.link
        return PlainTextResponse("This link has expired", job.faults.status or 404)
    return job, spec


def pieces(picture: bytes, size: int | None) -> tuple[int, Iterator[bytes]]:
    """Return an image's length and its bytes; with a size, a PNG padded to it, chunk by chunk."""
    if size is None:
        return len(picture), iter((picture,))
    sizes = _pad_sizes(size - len(picture))
    total = len(picture) + sum(sizes) + _FRAME * len(sizes)

    def parts() -> Iterator[bytes]:
        yield picture[:-_END]
        for length in sizes:
            yield _pad(length)
        yield picture[-_END:]

    return total, parts()


def with_comment(picture: bytes) -> bytes:
    """Return the same picture in other bytes: with a comment, in PNG as a private chunk."""
    if picture.startswith(b"\xff\xd8"):
        return picture[:2] + b"\xff\xfe\x00\x07again" + picture[2:]
    return picture[:-_END] + _pad(5) + picture[-_END:]


def _serve(jobs: Jobs, job: SandboxJob, spec: Spec, picture: bytes) -> Response:
    faults = job.faults
    name = f"{job.id}/{spec.index}"

    def again(kind: str) -> bool:
        return kind in faults and not jobs.spend(kind, name, 1)

    def strikes(kind: str) -> bool:
        return kind in faults and (faults.times is None or jobs.spend(kind, name, faults.times))

    if again("single_use_link"):
        return PlainTextResponse("This link was used", faults.status or 404)
    if again("other_bytes"):
        picture = with_comment(picture)
    if strikes("html_image"):
        return Response(HTML, media_type="image/png")
    if strikes("redirect_image"):
        return RedirectResponse(faults.url, 302)
    media_type = "text/plain" if "wrong_type" in faults else spec.media_type
    if strikes("gzip_image"):
        packed = gzip.compress(picture, mtime=0)
        return Response(packed, media_type=media_type, headers={"content-encoding": "gzip"})
    if strikes("unended_image"):
        return Response(picture[: -_END if spec.extension == "png" else -2], media_type=media_type)
    total, parts = pieces(picture, faults.bytes if "bytes" in faults else None)
    for kind, broken in (("truncated_image", Cut), ("stalled_image", Stalled), ("reset_image", Reset)):
        if strikes(kind):
            return broken(picture[: len(picture) // 2], total, media_type=media_type)
    if strikes("wrong_length"):
        return WrongLength(b"".join(parts), max(0, total + faults.off_by), media_type=media_type)
    pause_s = 0.0
    if strikes("slow_image"):
        content, step, pause_s = b"".join(parts), -(-total // DRIPS), faults.delay_s / DRIPS
        parts = (content[start : start + step] for start in range(0, total, step))
    sent = _paced(parts, pause_s)
    return StreamingResponse(sent, media_type=media_type, headers={"content-length": str(total)})


async def _paced(parts: Iterator[bytes], pause_s: float) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await asyncio.sleep(pause_s)


def _pad_sizes(missing: int) -> list[int]:
    sizes = []
    while missing >= _FRAME:
        length = min(PAD_CHUNK, missing - _FRAME)
        # What is left must be nothing, or room for another chunk's frame.
        if 0 < missing - _FRAME - length < _FRAME:
            length -= _FRAME
        sizes.append(length)
        missing -= length + _FRAME
    return sizes


@lru_cache(maxsize=4)
def _pad(length: int) -> bytes:
    """A private PNG chunk that decoders skip; noise, so that nothing on the way can compress it."""
    body = b"daRk" + random.Random(length).randbytes(length)  # noqa: S311
    return length.to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
