"""Links to images, thumbnails and records, over HTTP: they never die, nor pass wrong bytes for right."""

import hashlib
import io
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar
from urllib.parse import unquote

import httpx
import pytest
from PIL import Image

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.http.server import GRACE_S
from receiver.resources import Factories
from receiver.sandbox import SandboxConfig, SandboxServer
from receiver.thumbnails.pool import Thumbnailer
from storage.archive.object_store import ObjectStore, ObjectStream
from storage.errors import Unavailable
from tests.api.test_thumbnail_pool import odd
from tests.support.live import IMAGEN, ULTRA, Live, Start, started
from tests.support.processes import until

PROMPT = 'Bäume im Wind; filename="evil.exe"\r\nX: y'


class Watched(ObjectStore):
    """A store that remembers what it was asked for, and can break off in the middle."""

    log: ClassVar[list[tuple[str, str]]] = []
    open: ClassVar[list[str]] = []
    broken: ClassVar[threading.Event] = threading.Event()
    no_records: ClassVar[threading.Event] = threading.Event()

    @contextmanager
    def stream(self, key: str, *, byte_range: str | None = None) -> Iterator[ObjectStream]:
        """Open an object."""
        self.log.append(("stream", key))
        with super().stream(key, byte_range=byte_range) as stream:
            self.open.append(key)
            try:
                yield replace(stream, chunks=self._perhaps_broken(stream.chunks))
            finally:
                self.open.remove(key)

    def _perhaps_broken(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self.broken.is_set():
                yield chunk[: len(chunk) // 2]
                raise Unavailable("The store broke off.")
            yield chunk

    def put_new(self, key: str, *args: Any, **more: Any) -> Any:
        """Write an object, unless it is a record and none can be written."""
        if self.no_records.is_set() and "records/" in key:
            raise Unavailable("No record can be written.")
        self.log.append(("put", key))
        return super().put_new(key, *args, **more)


@dataclass(frozen=True)
class Made:
    """A service, one output of it, and the bytes of its image."""

    live: Live
    output: dict[str, Any]
    image: bytes
    asked: list[tuple[str, str]]
    """What the store was asked for."""

    @property
    def at(self) -> str:
        return f"/v1/outputs/{self.output['id']}"

    @property
    def etag(self) -> str:
        return f'"{self.output["sha256"]}"'

    def get(self, path: str = "/image?stream=1", method: str = "GET", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.live.http.request(method, self.at + path, headers=named)


@pytest.fixture(scope="module")
def made(s3_server: EmbeddedS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    # As large as the gateways' own, so that it comes in several chunks.
    config = SandboxConfig(latency_s=(0.05, 0.1), image_px=1024)
    with (
        SandboxServer(config) as sandbox,
        started(
            s3_server, tmp_path_factory.mktemp("links"), sandbox=sandbox,
            factories=Factories(store=Watched.connect),
        ) as live,
    ):  # fmt: skip
        job = live.make(ULTRA, prompt=PROMPT)
        (output,) = live.outputs(job["id"])
        image = live.bucket.store.read(output["key"], max_bytes=10_000_000)
        assert len(image) > 600_000
        assert hashlib.sha256(image).hexdigest() == output["sha256"]
        Watched.log.clear()
        yield Made(live, output, image, Watched.log)
    assert Watched.open == [], "however an answer ended, what was opened for it is closed"


SAFE = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "private, no-cache",
}


def is_safe(answer: httpx.Response) -> bool:
    policy = answer.headers["content-security-policy"].split("; ")
    named = {name: answer.headers.get(name) for name in SAFE}
    return named == SAFE and {"default-src 'none'", "sandbox"} <= set(policy)


def test_a_stream_is_the_whole_image(made: Made) -> None:
    answer = made.get()
    assert (answer.status_code, answer.content) == (200, made.image)
    headers = answer.headers
    assert headers["etag"] == made.etag
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-type"] == made.output["media_type"]
    assert headers["content-length"] == str(len(made.image))
    assert is_safe(answer)


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-99", 0, 100), ("bytes=100-", 100, None), ("bytes=-50", -50, None), ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, None), ("bytes=-99999999", 0, None), ("bytes=500000-500009", 500_000, 500_010),
        ("bytes=262143-262144", 262_143, 262_145),
    ],
)  # fmt: skip
def test_a_range_is_sent_as_a_part(made: Made, asked: str, begin: int, end: int | None) -> None:
    answer = made.get(range=asked)
    assert (answer.status_code, answer.content) == (206, made.image[begin:end])
    first = begin % len(made.image)
    last = first + len(answer.content) - 1
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(made.image)}"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["etag"] == made.etag
    assert is_safe(answer)


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "bytes=9-1", "bytes=x", "lines=0-1"])
def test_several_ranges_and_nonsense_get_the_whole(made: Made, asked: str) -> None:
    answer = made.get(range=asked)
    assert (answer.status_code, answer.content) == (200, made.image)
    assert "content-range" not in answer.headers


def test_a_range_behind_the_end_is_told_the_length(made: Made) -> None:
    made.asked.clear()
    for asked in (f"bytes={len(made.image)}-", "bytes=-0"):
        answer = made.get(range=asked)
        assert (answer.status_code, answer.json()["code"]) == (416, "unsatisfiable_range")
        assert answer.headers["content-range"] == f"bytes */{len(made.image)}"
    assert made.asked == []


def test_a_download_goes_on_only_with_the_same_image(made: Made) -> None:
    same = made.get(range="bytes=5-9", if_range=made.etag)
    assert (same.status_code, same.content) == (206, made.image[5:10])
    for other in ('"other"', f"W/{made.etag}", "Sat, 29 Oct 1994 19:43:31 GMT"):
        whole = made.get(range="bytes=5-9", if_range=other)
        assert (whole.status_code, len(whole.content)) == (200, len(made.image))


def test_who_has_it_is_told_so_without_the_bucket(made: Made) -> None:
    made.asked.clear()
    for known in (made.etag, f'"x", W/{made.etag}', "*"):
        for method in ("GET", "HEAD"):
            answer = made.get(method=method, if_none_match=known, range="bytes=0-9")
            assert (answer.status_code, answer.content) == (304, b"")
            assert answer.headers["etag"] == made.etag
            assert is_safe(answer)
    assert made.asked == []
    assert made.get(if_none_match='"other"').status_code == 200


def test_a_head_tells_the_same_without_the_bucket(made: Made) -> None:
    get = made.get()
    made.asked.clear()
    head = made.get(method="HEAD", range="bytes=0-9")
    assert made.asked == []
    told = {name: value for name, value in head.headers.items() if name not in {"date", "x-request-id"}}
    assert (head.status_code, head.content) == (200, b"")
    assert told == {name: get.headers[name] for name in told}
    assert int(told["content-length"]) == len(made.image)


def names(answer: httpx.Response) -> tuple[str, str, str]:
    found = re.fullmatch(
        r"(\w+); filename=\"([^\"\\]+)\"; filename\*=UTF-8''([^ '\"]+)", answer.headers["content-disposition"]
    )
    assert found, answer.headers["content-disposition"]
    return found[1], found[2], unquote(found[3])


def test_a_name_is_the_same_by_link_and_by_stream(made: Made) -> None:
    tail = f"-{made.output['job_id'][-8:]}-0.{made.output['key'].rpartition('.')[2]}"
    plain, own = "baume-im-wind-filename-evil-exe-x-y" + tail, "bäume-im-wind-filename-evil-exe-x-y" + tail
    link = httpx.get(made.get("/image").headers["location"], trust_env=False)
    assert names(made.get()) == names(link) == ("inline", plain, own)
    link = httpx.get(made.get("/image?download=1").headers["location"], trust_env=False)
    assert names(made.get("/image?stream=1&download=1")) == names(link) == ("attachment", plain, own)


def test_a_link_is_fresh_and_not_kept(made: Made) -> None:
    answer = made.get("/image", if_none_match="*", range="bytes=0-9")
    assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
    image = httpx.get(answer.headers["location"], trust_env=False)
    assert (image.content, image.headers["content-type"]) == (made.image, made.output["media_type"])
    part = httpx.get(answer.headers["location"], headers={"range": "bytes=5-9"}, trust_env=False)
    assert (part.status_code, part.content) == (206, made.image[5:10])
    head = httpx.head(made.get("/image", method="HEAD").headers["location"], trust_env=False)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(made.image)))


def test_a_link_outlives_the_presigned_one(start: Start) -> None:
    live = start(s3={"link_lifetime": 3})
    at = f"/v1/outputs/{live.make(IMAGEN)['outputs'][0]['id']}/image"
    old = live.http.get(at).headers["location"]
    assert httpx.get(old, trust_env=False).status_code == 200
    until(lambda: httpx.get(old, trust_env=False).status_code == 403)
    fresh = live.http.get(at).headers["location"]
    assert httpx.get(fresh, trust_env=False).status_code == 200
    assert live.http.get(at, params={"stream": 1}).status_code == 200


def test_links_are_public_and_streams_are_internal(start: Start) -> None:
    live = start(s3={"public_endpoint": "https://images.example:9000"})
    at = f"/v1/outputs/{live.make(IMAGEN)['outputs'][0]['id']}/image"
    link = live.http.get(at).headers["location"]
    assert link.startswith("https://images.example:9000/")
    assert live.http.get(at, params={"stream": 1}).status_code == 200
    assert live.http.get(at.replace("image", "thumbnail")).status_code == 200


def test_a_link_for_another_address_of_the_store_works(start: Start, s3_server: EmbeddedS3) -> None:
    other = s3_server.endpoint.replace("127.0.0.1", "localhost")
    live = start(s3={"public_endpoint": other})
    link = live.http.get(f"/v1/outputs/{live.make(IMAGEN)['outputs'][0]['id']}/image").headers["location"]
    assert link.startswith(other)
    assert httpx.get(link, trust_env=False).status_code == 200


@pytest.mark.parametrize("asked", ["", "bytes=10-500000"])
def test_a_stream_is_cut_off_where_its_bucket_breaks(made: Made, asked: str) -> None:
    headers = {"range": asked} if asked else {}
    Watched.broken.set()
    try:
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
            made.get(**headers)
    finally:
        Watched.broken.clear()
    assert made.get().content == made.image


def test_who_leaves_in_the_middle_holds_nothing_open(made: Made) -> None:
    with httpx.Client(base_url=made.live.url, trust_env=False) as http:
        for _ in range(3):
            with http.stream("GET", made.at + "/image?stream=1") as answer:
                next(answer.iter_raw(1000))
    until(lambda: Watched.open == [])


def replaced(live: Live, output: dict[str, Any], image: bytes) -> None:
    """Put other bytes in the place of an archived image, as only somebody with the bucket's keys can."""
    store = live.bucket.store
    store.delete(output["key"])
    store.put_new(
        output["key"], io.BytesIO(image), size=len(image), sha256=hashlib.sha256(image).hexdigest(),
        content_type="text/html", metadata={},
    )  # fmt: skip


def test_wrong_bytes_never_end_as_if_they_were_right(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = bytearray(made.image)
    wrong[1000] ^= 1
    replaced(made.live, made.output, bytes(wrong))
    try:
        for headers in ({}, {"range": "bytes=0-"}):
            with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
                made.get(**headers)
        assert "an archived image is damaged" in capsys.readouterr().out
        thumbnail = made.get("/thumbnail")
        assert (thumbnail.status_code, thumbnail.json()["code"]) == (422, "no_thumbnail")
        replaced(made.live, made.output, made.image[:-1])
        for headers in ({}, {"range": "bytes=0-9"}):
            answer = made.get(**headers)
            assert (answer.status_code, answer.json()["code"]) == (410, "image_missing")
            assert answer.json()["object"]["bytes_found"] == len(made.image) - 1
    finally:
        replaced(made.live, made.output, made.image)
    assert made.get().content == made.image


# Thumbnails.


@pytest.fixture(scope="module")
def thumbnailed(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    more: dict[str, Any] = {"factories": Factories(store=Watched.connect), "s3": {"prefix": "p/"}}
    with started(s3_server, tmp_path_factory.mktemp("thumbnailed"), sandbox=sandbox, **more) as live:
        yield live


def test_a_thumbnail_is_made_once_kept_and_then_read(thumbnailed: Live) -> None:
    live = thumbnailed
    (output,) = live.outputs(live.make(ULTRA)["id"])
    at, key = f"/v1/outputs/{output['id']}/thumbnail", f"p/thumbnails/{output['id']}.webp"
    Watched.log.clear()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: httpx.get(live.url + at, trust_env=False), range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert Watched.log.count(("put", key)) == Watched.log.count(("stream", output["key"])) == 1
    image = Image.open(io.BytesIO(answers[0].content))
    assert (image.format, max(image.size)) == ("WEBP", 64)

    Watched.log.clear()
    again = live.http.get(at)
    assert Watched.log == [("stream", key)]
    assert again.content == answers[0].content == live.bucket.store.read(key, max_bytes=10**6)
    assert live.bucket.store.head(key).content_type == again.headers["content-type"] == "image/webp"
    assert is_safe(again)
    assert names(again)[1].endswith("-0-thumbnail.webp")

    Watched.log.clear()
    for known in (again.headers["etag"], again.headers["etag"].removeprefix("W/")):
        cached = live.http.get(at, headers={"if-none-match": known})
        assert (cached.status_code, cached.content) == (304, b"")
        assert cached.headers["etag"] == again.headers["etag"]
    assert Watched.log == []
    head = live.http.head(at)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(again.content)))

    live.bucket.store.delete(key)
    assert live.http.get(at).content == again.content
    assert live.bucket.store.read(key, max_bytes=10**6) == again.content


@pytest.mark.parametrize(
    ("metadata", "size"), [({"darkroom-thumbnail-recipe": "0"}, 9), ({}, 2_000_000)], ids=["old", "huge"]
)
def test_one_that_does_not_fit_is_made_anew(thumbnailed: Live, metadata: dict[str, str], size: int) -> None:
    live = thumbnailed
    output = live.make(IMAGEN)["outputs"][0]["id"]
    key, junk = f"p/thumbnails/{output}.webp", bytes(size)
    live.bucket.store.put_new(
        key, io.BytesIO(junk), size=size, sha256=hashlib.sha256(junk).hexdigest(),
        content_type="image/webp", metadata=metadata,
    )  # fmt: skip
    answer = live.http.get(f"/v1/outputs/{output}/thumbnail")
    assert answer.content[8:12] == b"WEBP"
    assert live.bucket.store.read(key, max_bytes=10**6) == answer.content


def test_an_image_over_the_limit_has_no_thumbnail(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    with started(s3_server, tmp_path, sandbox=sandbox) as live:
        output = live.make(IMAGEN)["outputs"][0]["id"]
    low: dict[str, Any] = {"download": {"max_pixels": 100}, "s3": {"bucket": live.settings.s3.bucket}}
    with started(s3_server, tmp_path, sandbox=sandbox, work=False, **low) as live:
        answer = live.http.get(f"/v1/outputs/{output}/thumbnail")
        assert (answer.status_code, answer.json()["code"]) == (422, "no_thumbnail")
        assert "DARKROOM_DOWNLOAD__MAX_PIXELS" in answer.json()["detail"]
        assert answer.headers["cache-control"] == "no-store"
        assert live.http.get(f"/v1/outputs/{output}/image?stream=1").status_code == 200


@pytest.mark.alone
def test_who_waits_for_a_thumbnail_holds_up_no_stop(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    hanging = Thumbnailer(odd("time.sleep(60)", tmp_path))
    with ThreadPoolExecutor(1) as pool:
        factories = Factories(thumbnailer=lambda: hanging)
        with started(s3_server, tmp_path, sandbox=sandbox, factories=factories) as live:
            at = f"{live.url}/v1/outputs/{live.make(IMAGEN)['outputs'][0]['id']}/thumbnail"
            asking = pool.submit(httpx.get, at, trust_env=False, timeout=30)
            while not hanging.children():
                threading.Event().wait(0.01)
            began = monotonic()
        assert monotonic() - began < GRACE_S
        answer = asking.result(5)
    assert (answer.status_code, answer.json()["code"]) == (503, "unready")
    assert hanging.children() == []


# Records.


def test_a_record_is_the_one_in_the_bucket(live: Live) -> None:
    job = live.make(ULTRA, num_images=2, tags={"k": "v"})
    told = [live.http.get(f"/v1/outputs/{output['id']}/record").json() for output in job["outputs"]]
    assert told[0] == told[1] == live.bucket.archive.read_record(live.job(job["id"]))
    assert (told[0]["schema"], told[0]["job"]["id"]) == ("darkroom/record/1", job["id"])


def test_a_record_that_is_not_there_is_not_found(thumbnailed: Live) -> None:
    live = thumbnailed
    Watched.no_records.set()
    try:
        job_id = live.submit(IMAGEN)["id"]
        until(lambda: live.outputs(job_id))
        outputs = live.outputs(job_id)
        answer = live.http.get(f"/v1/outputs/{outputs[0]['id']}/record")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "no record yet" in answer.json()["detail"]
        assert live.http.get(f"/v1/outputs/{outputs[0]['id']}/image?stream=1").status_code == 200
    finally:
        Watched.no_records.clear()
    live.finish(job_id)
    assert live.http.get(f"/v1/outputs/{outputs[0]['id']}/record").status_code == 200
    job = live.job(job_id)
    live.bucket.store.delete(live.bucket.archive.record_key(job))
    gone = live.http.get(f"/v1/outputs/{outputs[0]['id']}/record")
    assert (gone.status_code, gone.json()["code"]) == (410, "record_missing")
    assert gone.json()["object"]["key"] in gone.json()["detail"]


def test_a_job_has_its_outputs_with_their_links(live: Live, start: Start) -> None:
    without = start(callbacks=False)
    for service, begins in ((live, live.url), (without, "")):
        job = service.make(ULTRA, num_images=2)
        assert job["outputs"] == service.outputs(job["id"])
        assert service.http.get("/v1/jobs").json()["jobs"][0]["outputs"] == job["outputs"]
        for output in job["outputs"]:
            at = f"{begins}/v1/outputs/{output['id']}"
            assert (output["image_url"], output["thumbnail_url"]) == (f"{at}/image", f"{at}/thumbnail")
            image = service.http.get(output["image_url"], params={"stream": 1}).content
            assert hashlib.sha256(image).hexdigest() == output["sha256"]
            assert service.http.get(output["thumbnail_url"]).content[8:12] == b"WEBP"
