"""A bucket that hangs holds up whoever wants something of it, and nobody else."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import httpx
import pytest

from receiver.errors import Unready
from receiver.http.bucket_threads import AT_ONCE, BucketThreads
from receiver.http.limits import LARGE
from receiver.resources import Factories
from storage.archive.object_store import ObjectStore, ObjectStream
from tests.callbacks.test_callbacks import completed, signed
from tests.support.live import IMAGEN, ULTRA, Live, Start

ASKING = 60
"""More than the threads that the HTTP edge has for everything else, of which there are 40."""


class Hanging(ObjectStore):
    """A store whose reads hang while it is told to, as they open something or at each chunk."""

    at: ClassVar[str] = ""
    go_on: ClassVar[threading.Event] = threading.Event()
    stuck: ClassVar[threading.Semaphore] = threading.Semaphore(0)

    @contextmanager
    def stream(self, key: str, *, byte_range: str | None = None) -> Iterator[ObjectStream]:
        """Open an object, in time."""
        self._hang("opening")
        with super().stream(key, byte_range=byte_range) as stream:
            yield replace(stream, chunks=self._slowly(stream.chunks))

    def read(self, key: str, *, max_bytes: int) -> bytes:
        """Read an object, in time."""
        self._hang(self.at)
        return super().read(key, max_bytes=max_bytes)

    def presign(self, key: str, **more: Any) -> str:
        """Make a link, for which somebody has to be asked first."""
        self._hang(self.at)
        return super().presign(key, **more)

    def _slowly(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._hang("reading")
            yield chunk

    def _hang(self, where: str) -> None:
        if where and where == self.at:
            self.stuck.release()
            assert self.go_on.wait(60)


@dataclass(frozen=True)
class Made:
    """A service on such a store, a job of it that is archived, and its output."""

    live: Live
    job_id: str
    at: str


@pytest.fixture(scope="module")
def made(start_shared: Start) -> Made:
    live = start_shared(factories=Factories(store=Hanging.connect))
    job = live.make(IMAGEN)
    output_id = job["outputs"][0]["id"]
    assert live.http.get(f"/v1/outputs/{output_id}/thumbnail").status_code == 200
    return Made(live, job["id"], output_id)


def paths(output_id: str, where: str) -> list[str]:
    """What is asked of the bucket, in every way there is."""
    at = f"/v1/outputs/{output_id}"
    ways = [f"{at}/thumbnail", f"{at}/image?stream=1", f"{at}/image", f"{at}/record", f"/outputs/{output_id}"]
    # Links and records are not read in chunks; they would hang as what is opened does.
    return ways if where == "opening" else ways[:2]


@pytest.mark.parametrize("where", ["opening", "reading"])
def test_all_else_is_answered_while_the_bucket_hangs(made: Made, where: str) -> None:
    live, ways = made.live, paths(made.at, where)

    def ask(number: int) -> int:
        answer = httpx.get(live.url + ways[number % len(ways)], timeout=60, trust_env=False)
        return 200 if answer.status_code == 307 else answer.status_code

    Hanging.go_on.clear()
    Hanging.at = where
    with ThreadPoolExecutor(ASKING) as pool:
        try:
            asked = [pool.submit(ask, number) for number in range(ASKING)]
            for _ in range(AT_ONCE):
                assert Hanging.stuck.acquire(timeout=20)
            _everything_else_is_answered(made)
            assert not [one for one in asked if one.done()]
            assert not Hanging.stuck.acquire(blocking=False), "no more threads than these are held"
        finally:
            Hanging.at = ""
            Hanging.go_on.set()
        assert {one.result() for one in asked} == {200}
    while Hanging.stuck.acquire(blocking=False):
        pass


def _everything_else_is_answered(made: Made) -> None:
    live = made.live
    with httpx.Client(base_url=live.url, timeout=10, trust_env=False) as client:
        # More than once each, so that no thread that happened to be free is what helped.
        for _ in range(3):
            assert client.get("/healthz").status_code == 200
            assert client.get("/v1/jobs").status_code == 200
            assert client.get("/jobs").status_code == 200
        # It fails, so that nothing is archived meanwhile, which would hang too.
        failing = {"sandbox": "failed"}
        assert client.post("/v1/jobs", json={**ULTRA, "params": failing}).status_code == 202
        theirs = live.job(made.job_id).gateway_job_id or ""
        body = json.dumps({**json.loads(completed(theirs)), "padding": "x" * (2 * LARGE)}).encode()
        taken = client.post(live.callback_url(made.job_id), content=body, headers=signed(body))
        assert taken.status_code == 200, taken.text


def test_too_many_waiting_are_refused() -> None:
    async def many() -> list[Any]:
        turns, go_on = BucketThreads(at_once=2, most_waiting=3), threading.Event()
        asked = [asyncio.create_task(turns.run(go_on.wait)) for _ in range(8)]
        try:
            await asyncio.wait(asked[5:], timeout=10)
            assert [one.done() for one in asked] == [False] * 5 + [True] * 3
        finally:
            go_on.set()
        again = await asyncio.gather(*asked, return_exceptions=True)
        assert await turns.run(go_on.wait), "there is room again"
        return again

    answers = asyncio.run(many())
    assert answers[:5] == [True] * 5
    assert {type(answer) for answer in answers[5:]} == {Unready}
