"""Cache thumbnails in the bucket: made when first requested, once for all concurrent requests."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from tempfile import SpooledTemporaryFile
from time import monotonic
from typing import BinaryIO, cast

import structlog
from anyio import CapacityLimiter, to_thread

from receiver.errors import NoThumbnail, Unready
from receiver.http.bucket_threads import BucketThreads
from receiver.thumbnails.pool import Thumbnailer
from storage.archive.object_store import ObjectStore
from storage.archive.thumbnails import ThumbnailStore
from storage.archive.verified_stream import check_length, verified_chunks
from storage.errors import Corrupt, StorageError
from storage.models import Output

log = structlog.get_logger("darkroom.thumbnails")

RECIPE = "1"
"""How `receiver/thumbnails/child.py` makes them. Count it up with a change there, and all are made again."""
NONE_OF = {
    "image/svg+xml": "an SVG: it may hold scripts and links",
    "image/heic": "a HEIC: no decoder of it is used here",
    "image/jxl": "a JPEG XL: no decoder of it is used here",
}
"""Why there is none of some types."""
MOST_WAITING = 256
"""How many may be waited for; one more gets Unready. A page of a gallery has 100."""
REMEMBERED_S = 600.0
"""TTL of the negative cache: an image of which no thumbnail can be made is not tried again meanwhile."""
MOST_REMEMBERED = 4096
SPOOL_BYTES = 8 * 1024 * 1024


@dataclass
class Thumbnails:
    """The thumbnail cache of one event loop; close it at the end."""

    store: ObjectStore
    kept: ThumbnailStore
    thumbnailer: Thumbnailer
    bucket: BucketThreads
    explained: Callable[[Output], AbstractContextManager[None]]
    """That of `MissingImages`."""
    max_pixels: int
    """Of larger images none are made."""
    most_waiting: int = MOST_WAITING
    """How many may be waited for at the same time."""
    now_s: Callable[[], float] = monotonic
    """Any clock that only goes forward."""

    def __post_init__(self) -> None:
        # Threads of their own: making one takes long, and cached ones need not wait for it.
        self._places = CapacityLimiter(self.thumbnailer.at_once)
        self._making: dict[str, asyncio.Task[bytes]] = {}
        self._refused: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._closed = False

    async def get(self, output: Output) -> bytes:
        """Return the thumbnail of an output, in WebP.

        Raises NoThumbnail if none can be made, now or a while ago; ImageMissing if the image is not in the
        bucket; Unready if too many are being made; and the errors of storage.
        """
        until, why = self._refused.get(output.id, (0.0, ""))
        if until > self.now_s():
            raise NoThumbnail(why)
        if (kept := await self.bucket.run(partial(self.kept.read, output))) is not None:
            return kept
        if (making := self._making.get(output.id)) is None:
            if len(self._making) >= self.most_waiting:
                raise Unready("Many thumbnails are being made; ask again in a moment.")
            making = self._making[output.id] = asyncio.create_task(self._make_in_turn(output))
        # A request that is cancelled must not cancel it for the others that wait.
        return await asyncio.shield(making)

    def close(self) -> None:
        """Stop making any; requests that wait get Unready."""
        self._closed = True
        self.thumbnailer.close()

    async def _make_in_turn(self, output: Output) -> bytes:
        try:
            # Abandoned if the service stops while the bucket hangs: the process must not wait for it.
            return await to_thread.run_sync(self._make, output, limiter=self._places, abandon_on_cancel=True)
        except NoThumbnail as error:
            self._remember(output, str(error))
            raise
        finally:
            del self._making[output.id]

    def _make(self, output: Output) -> bytes:
        if self._closed:
            raise Unready("The service is stopping.")
        if (kept := self.kept.read(output)) is not None:  # it was made while this one waited
            return kept
        made = self._made(output)
        try:
            self.kept.save(output, made)
        except StorageError as error:
            log.warning("a thumbnail could not be kept", output=output.id, why=str(error))
        return made

    def _made(self, output: Output) -> bytes:
        if (why := NONE_OF.get(output.media_type)) is not None:
            raise NoThumbnail(f"No thumbnail is made of {why}.")
        pixels = output.width * output.height
        if pixels > self.max_pixels:
            raise NoThumbnail(
                f"No thumbnail can be made of this image: it has {output.width} x {output.height} pixels; "
                f"the limit is {self.max_pixels} (DARKROOM_DOWNLOAD__MAX_PIXELS)."
            )
        with SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            image = cast("BinaryIO", spool)
            self._fetch(output, image)
            return self.thumbnailer.make(image, size=output.bytes, pixels=pixels)

    def _fetch(self, output: Output, file: BinaryIO) -> None:
        try:
            with ExitStack() as opened:
                with self.explained(output):
                    stream = opened.enter_context(self.store.stream(output.key))
                    check_length(stream, output, output.bytes)
                # Not `writelines`: until Python 3.12 a spooled file looks at its size only after all of it.
                for chunk in verified_chunks(stream, output):
                    file.write(chunk)
        except Corrupt as error:
            log.error("an archived image is damaged", output=output.id, why=str(error))
            raise NoThumbnail(
                "No thumbnail can be made of this image: the bucket holds other bytes than were archived."
            ) from error
        except OSError as error:
            raise Unready(f"The disk cannot take an image: {error.strerror}.") from error

    def _remember(self, output: Output, why: str) -> None:
        self._refused[output.id] = (self.now_s() + REMEMBERED_S, why)
        self._refused.move_to_end(output.id)
        while len(self._refused) > MOST_REMEMBERED:
            self._refused.popitem(last=False)
