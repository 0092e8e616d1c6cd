"""Thumbnails of outputs, on a real bucket: made once, not too many at a time, not tried over and over."""

import asyncio
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from receiver.errors import NoThumbnail
from receiver.http.bucket_threads import BucketThreads
from receiver.thumbnails.cache import REMEMBERED_S, Thumbnails
from receiver.thumbnails.pool import Thumbnailer
from storage.archive.keys import Keys
from storage.archive.object_store import ObjectStore
from storage.archive.thumbnails import ThumbnailStore
from storage.errors import Unavailable
from storage.models import Output
from tests.api.test_thumbnail_pool import odd
from tests.support.ledgers import Clock
from tests.support.pictures import bomb, corners, encoded

PICTURE = encoded(corners(), "PNG")


class Counting(Thumbnailer):
    """Counts the images that it is given."""

    tried = 0

    def make(self, *args: Any, **more: Any) -> bytes:
        """Make a thumbnail."""
        self.tried += 1
        return super().make(*args, **more)


def archived(store: ObjectStore, data: bytes, index: int = 0, pixels: tuple[int, int] = (900, 600)) -> Output:
    output = Output(
        job_id="01a201ee-8cc4-7255-b42d-d6cf39ac8954", index=index, key=f"images/{index}", bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(), media_type="image/png", width=pixels[0], height=pixels[1],
        stored_at=0,
    )  # fmt: skip
    more: Any = {"sha256": output.sha256, "content_type": "image/png", "metadata": {}}
    store.put_new(output.key, io.BytesIO(data), size=len(data), **more)
    return output


@contextmanager
def thumbnails(store: ObjectStore, thumbnailer: Thumbnailer, **more: Any) -> Iterator[Thumbnails]:
    kept = ThumbnailStore(store, Keys(), "1")
    made = Thumbnails(
        store, kept, thumbnailer, BucketThreads(), lambda _output: nullcontext(), max_pixels=10**8, **more
    )
    yield made
    made.close()


def got(made: Thumbnails, *outputs: Output) -> list[Any]:
    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(made.get(output) for output in outputs), return_exceptions=True)

    return asyncio.run(all_of_them())


def test_a_failed_thumbnail_is_not_tried_for_a_while(store: ObjectStore) -> None:
    thumbnailer, clock = Counting(), Clock()
    broken, sound = archived(store, bomb()), archived(store, PICTURE, 1)
    with thumbnails(store, thumbnailer, now_s=clock) as made:
        for _ in range(3):
            (answer,) = got(made, broken)
            assert isinstance(answer, NoThumbnail)
            assert answer.code == "no_thumbnail"
        assert thumbnailer.tried == 1
        assert isinstance(got(made, sound)[0], bytes)
        clock.now += int(REMEMBERED_S) + 1
        got(made, broken)
        assert thumbnailer.tried == 3
    assert [stored.key for stored in store.list("thumbnails/")] == [f"thumbnails/{sound.id}.webp"]


def test_one_more_than_may_wait_is_sent_home_at_once(store: ObjectStore, tmp_path: Any) -> None:
    thumbnailer = Thumbnailer(odd("time.sleep(60)", tmp_path), deadline_s=1)
    outputs = [archived(store, PICTURE, index) for index in range(3)]
    with thumbnails(store, thumbnailer, most_waiting=2) as made:
        answers = got(made, *outputs)
    assert sorted(type(answer).__name__ for answer in answers) == ["NoThumbnail", "NoThumbnail", "Unready"]


class Full(ObjectStore):
    """A bucket that takes nothing more."""

    def put_new(self, key: str, *args: Any, **more: Any) -> Any:
        """Write no thumbnail."""
        if key.startswith("thumbnails/"):
            raise Unavailable("The bucket is full.")
        return super().put_new(key, *args, **more)


def test_one_that_cannot_be_kept_is_sent_all_the_same(s3_access: Any) -> None:
    store = s3_access.open(Full)
    store.check(create=True)
    thumbnailer = Counting()
    output = archived(store, PICTURE)
    with thumbnails(store, thumbnailer) as made:
        assert [bytes(got(made, output)[0])[8:12] for _ in range(2)] == [b"WEBP"] * 2
    assert thumbnailer.tried == 2


def test_who_leaves_takes_it_from_nobody(store: ObjectStore) -> None:
    output = archived(store, PICTURE)

    async def one_leaves(made: Thumbnails) -> bytes:
        leaver, stayer = (asyncio.create_task(made.get(output)) for _ in range(2))
        await asyncio.wait([leaver], timeout=0.02)
        leaver.cancel()
        return await stayer

    with thumbnails(store, Thumbnailer()) as made:
        assert asyncio.run(one_leaves(made))[8:12] == b"WEBP"
