"""Thumbnails: read from the bucket, or made when first asked for, each once however many ask."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from tempfile import SpooledTemporaryFile
from threading import Lock
from time import monotonic
from typing import BinaryIO, cast

import structlog
from starlette.concurrency import run_in_threadpool

from receiver.errors import NoThumbnail, Unready
from receiver.thumbnailer import Thumbnailer
from storage.errors import Corrupt, StorageError
from storage.objects import ObjectStore
from storage.reading import check_length, checked
from storage.records import Output
from storage.thumbnails import KeptThumbnails

log = structlog.get_logger("darkroom.thumbnails")

RECIPE = "1"
"""How `receiver/thumbnailing.py` makes them. Count it up with a change there, and all are made anew."""
MOST_WAITING = 256
"""How many may be waited for; whoever asks for one more is told to come back. A page of a gallery has 100."""
REMEMBERED_S = 600.0
"""How long an image of which no thumbnail can be made is not tried again."""
MOST_REMEMBERED = 4096
SPOOL_BYTES = 8 * 1024 * 1024


class Thumbnails:
    """The thumbnails of outputs. Thread-safe; close it at the end."""

    def __init__(
        self,
        store: ObjectStore,
        kept: KeptThumbnails,
        thumbnailer: Thumbnailer,
        *,
        max_pixels: int,
        most_waiting: int = MOST_WAITING,
        now_s: Callable[[], float] = monotonic,
    ) -> None:
        """`max_pixels`: of larger images none are made. `now_s` is any clock that only goes forward.

        `most_waiting` may be waited for at the same time.
        """
        self._store = store
        self._kept = kept
        self._thumbnailer = thumbnailer
        self._max_pixels = max_pixels
        self._most_waiting = most_waiting
        self._now_s = now_s
        # Threads of their own: those of the HTTP edge would all wait here, and nothing else be answered.
        self._pool = ThreadPoolExecutor(thumbnailer.at_once, "darkroom-thumbnails")
        self._lock = Lock()
        self._making: dict[str, Future[bytes]] = {}
        self._refused: OrderedDict[str, tuple[float, str]] = OrderedDict()

    async def get(self, output: Output) -> bytes:
        """The thumbnail of an output, in WebP.

        Raises NoThumbnail if none can be made, now or a while ago; Unready if too many are being made; and
        the errors of storage.
        """
        self._check_refused(output)
        if (kept := await run_in_threadpool(self._kept.read, output)) is not None:
            return kept
        # Whoever leaves must not take it from the others who wait for it.
        return await asyncio.shield(asyncio.wrap_future(self._begin(output)))

    def close(self) -> None:
        """Stop making any; those who wait are answered Unready."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._thumbnailer.close()

    def _begin(self, output: Output) -> Future[bytes]:
        with self._lock:
            if (making := self._making.get(output.id)) is not None:
                return making
            if len(self._making) >= self._most_waiting:
                raise Unready("Many thumbnails are being made; ask again in a moment.")
            try:
                making = self._pool.submit(self._make, output)
            except RuntimeError:
                raise Unready("The service is stopping.") from None
            self._making[output.id] = making
            return making

    def _make(self, output: Output) -> bytes:
        try:
            if (kept := self._kept.read(output)) is not None:  # it was made while this one waited
                return kept
            made = self._made(output)
            self._keep(output, made)
        except NoThumbnail as error:
            self._remember(output, str(error))
            raise
        else:
            return made
        finally:
            with self._lock:
                del self._making[output.id]

    def _made(self, output: Output) -> bytes:
        pixels = output.width * output.height
        if pixels > self._max_pixels:
            raise NoThumbnail(
                f"No thumbnail can be made of this image: it has {output.width} x {output.height} pixels; "
                f"the limit is {self._max_pixels} (DARKROOM_DOWNLOAD__MAX_PIXELS)."
            )
        with SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            image = cast("BinaryIO", spool)
            self._fetch(output, image)
            return self._thumbnailer.make(image, size=output.bytes, pixels=pixels)

    def _fetch(self, output: Output, file: BinaryIO) -> None:
        try:
            with self._store.stream(output.key) as stream:
                check_length(stream, output, output.bytes)
                file.writelines(checked(stream, output))
        except Corrupt as error:
            log.error("an archived image is damaged", output=output.id, why=str(error))
            raise NoThumbnail(
                "No thumbnail can be made of this image: the bucket holds other bytes than were archived."
            ) from error
        except OSError as error:
            raise Unready(f"The disk cannot take an image: {error.strerror}.") from error

    def _keep(self, output: Output, made: bytes) -> None:
        try:
            self._kept.keep(output, made)
        except StorageError as error:
            log.warning("a thumbnail could not be kept", output=output.id, why=str(error))

    def _check_refused(self, output: Output) -> None:
        with self._lock:
            until, why = self._refused.get(output.id, (0.0, ""))
        if until > self._now_s():
            raise NoThumbnail(why)

    def _remember(self, output: Output, why: str) -> None:
        with self._lock:
            self._refused[output.id] = (self._now_s() + REMEMBERED_S, why)
            self._refused.move_to_end(output.id)
            while len(self._refused) > MOST_REMEMBERED:
                self._refused.popitem(last=False)
