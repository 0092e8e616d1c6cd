"""An archived image that the bucket lacks: said as it is everywhere, and fetched again by a retry."""

import hashlib
import io
from typing import Any, ClassVar

import httpx
import pytest

from receiver.resources import Factories
from storage.archive.object_store import ObjectStore, StoredObject
from storage.errors import Misconfigured, NotFound, StorageError, Unavailable
from tests.jobs.test_life import record_of
from tests.jobs.test_retry import retry
from tests.support.live import IMAGEN, ULTRA, Live, Start
from tests.support.pages import visiting
from tests.support.running import command


class Odd(ObjectStore):
    """A store that may raise an error for each question about one object."""

    error: ClassVar[list[StorageError]] = []

    def head(self, key: str, *, checksum: bool | None = None) -> StoredObject:
        """Ask for an object's metadata, or raise that error."""
        for error in self.error:
            raise error
        return super().head(key, checksum=checksum)

    def stream(self, key: str, **more: Any) -> Any:
        """Open an object, or raise that error."""
        for error in self.error:
            raise error
        return super().stream(key, **more)


def archived(start: Start, **more: Any) -> tuple[Live, dict[str, Any]]:
    """A service, and an output of it."""
    live = start(**more)
    job = live.make(ULTRA)
    return live, live.outputs(job["id"])[0]


def lose(live: Live, output: dict[str, Any], instead: bytes | None = None) -> None:
    """Delete an image from the bucket, or put another object in its place."""
    live.bucket.store.delete(output["key"])
    if instead is not None:
        put(live, output, instead)


def put(live: Live, output: dict[str, Any], content: bytes) -> None:
    live.bucket.store.put_new(
        output["key"], io.BytesIO(content), size=len(content), sha256=hashlib.sha256(content).hexdigest(),
        content_type="image/png", metadata={},
    )  # fmt: skip


def ask(live: Live, output: dict[str, Any], path: str = "image?stream=1", **more: Any) -> httpx.Response:
    return live.http.request(more.pop("method", "GET"), f"/v1/outputs/{output['id']}/{path}", **more)


@pytest.mark.parametrize("found", [None, 3], ids=["gone", "another length"])
def test_every_way_to_the_image_says_what_is_true(start: Start, found: int | None) -> None:
    live, output = archived(start)
    lose(live, output, None if found is None else b"abc")
    facts = {name: output[name] for name in ("key", "sha256", "bytes", "stored_at")}
    facts |= {} if found is None else {"bytes_found": found}
    for path in ("image?stream=1", "image", "thumbnail"):
        answer = ask(live, output, path)
        told = answer.json()
        assert (answer.status_code, told["code"]) == (410, "image_missing"), path
        assert answer.headers["content-type"] == "application/problem+json"
        assert told["object"] == facts
        assert all(str(fact) in told["detail"] for fact in facts.values())
    assert ask(live, output, headers={"range": "bytes=100-200"}).status_code == 410
    for path in ("image?stream=1", "image"):
        assert ask(live, output, path, method="HEAD").status_code == 410


def test_json_pages_and_commands_do_not_pretend(start: Start) -> None:
    live, output = archived(start)
    assert "missing_since" not in output
    lose(live, output)
    assert ask(live, output).status_code == 410
    job_id, output_id = output["job_id"], output["id"]
    shown = live.http.get(f"/v1/outputs/{output_id}").json()
    assert shown["missing_since"] >= output["stored_at"]
    assert shown["job"]["missing"] == [output_id]
    assert live.outputs(job_id)[0]["missing_since"] == shown["missing_since"]
    assert live.http.get(f"/v1/jobs/{job_id}").json()["missing"] == [output_id]
    assert live.http.get("/v1/jobs").json()["jobs"][0]["missing"] == [output_id]
    assert "\ndarkroom_images_missing 1.0\n" in live.http.get("/metrics").text
    with visiting(live.url) as visitor:
        page = visitor.get(f"/outputs/{output_id}").html
        assert "no longer in the bucket" in page
        assert 'id="image"' not in page
        assert f'action="/jobs/{job_id}/retry"' in page
        of_job = visitor.get(f"/jobs/{job_id}").html
        assert "No longer in the bucket: image 0" in of_job
        assert f'action="/jobs/{job_id}/retry"' in of_job
        assert f'action="/jobs/{job_id}/retry"' in visitor.get("/jobs").html
    saved = command("download", output_id, "--to", str(live.settings.data_dir / "out"), DARKROOM_URL=live.url)
    assert saved.returncode == 1
    assert "is no longer in the bucket" in " ".join(saved.stderr.split())
    told = command("show", output_id, DARKROOM_URL=live.url).stdout
    assert "Missing" in told


def test_an_image_that_is_back_is_served_again(start: Start) -> None:
    live, output = archived(start)
    image = ask(live, output).content
    lose(live, output)
    assert ask(live, output).status_code == 410
    put(live, output, image)
    assert ask(live, output).content == image
    assert "missing_since" not in live.outputs(output["job_id"])[0]


AWAY = {
    "away": Unavailable("The store is away."),
    "refuses": Misconfigured("The object store responded 403 AccessDenied."),
    "a 404 of something else": NotFound("The object store has no such thing."),
}


@pytest.mark.parametrize("error", AWAY.values(), ids=AWAY)
def test_only_a_true_answer_is_believed(start: Start, error: StorageError) -> None:
    live, output = archived(start, factories=Factories(store=Odd.connect))
    Odd.error.append(error)
    try:
        for path in ("image?stream=1", "thumbnail"):
            answer = ask(live, output, path)
            assert (answer.status_code, answer.json()["code"]) == (503, "unready"), path
        assert ask(live, output, "image").status_code == 307
        answer = live.http.post(f"/v1/jobs/{output['job_id']}/retry")
        assert answer.status_code in {409, 503}
    finally:
        Odd.error.clear()
    assert "missing_since" not in live.outputs(output["job_id"])[0]


def test_a_kept_thumbnail_is_shown_and_a_lost_one_made(start: Start) -> None:
    live, output = archived(start)
    first = ask(live, output, "thumbnail")
    live.bucket.store.delete(f"thumbnails/{output['id']}.webp")
    assert ask(live, output, "thumbnail").content == first.content
    lose(live, output)
    assert ask(live, output, "thumbnail").status_code == 200, "it is derived, and still there"


def test_a_retry_fetches_a_lost_image_at_no_cost(start: Start) -> None:
    live, output = archived(start)
    image, made = ask(live, output).content, len(live.sandbox.jobs())
    counted = live.http.get("/v1/facets").json()
    lose(live, output)
    # Nobody asked for it yet: the retry itself finds out.
    job = retry(live, output["job_id"])
    assert (job["status"], job.get("missing")) == ("archived", None)
    assert ask(live, output).content == image
    assert len(live.sandbox.jobs()) == made
    record = record_of(live, output["job_id"])
    assert record["supersedes"].endswith(f"{output['job_id']}.json")
    assert record["outputs"][0]["sha256"] == output["sha256"]
    assert live.http.get("/v1/facets").json() == counted, "it is counted once"
    assert "\ndarkroom_images_missing 0.0\n" in live.http.get("/metrics").text
    again = live.http.post(f"/v1/jobs/{output['job_id']}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "not_retryable")


def test_only_the_lost_one_of_several_is_fetched(start: Start) -> None:
    live = start()
    job = live.make(ULTRA | {"num_images": 3})
    first, *others = live.outputs(job["id"])
    lose(live, first)
    assert [ask(live, one).status_code for one in (first, *others)] == [410, 200, 200]
    assert live.http.get(f"/v1/jobs/{job['id']}").json()["missing"] == [first["id"]]
    assert retry(live, job["id"])["status"] == "archived"
    again = live.outputs(job["id"])
    assert [one["sha256"] for one in again] == [one["sha256"] for one in (first, *others)]
    assert [one["stored_at"] for one in again[1:]] == [one["stored_at"] for one in others]
    assert len(record_of(live, job["id"])["outputs"]) == 3


def test_a_lost_image_of_an_answer_is_asked_for_again(start: Start) -> None:
    live = start()
    job = live.make(IMAGEN, fault="inline_image")
    (lost,) = live.outputs(job["id"])
    lose(live, lost)
    assert retry(live, job["id"])["status"] == "archived"
    assert live.outputs(job["id"])[0]["sha256"] == lost["sha256"]


@pytest.mark.parametrize(("images", "status"), [(1, "failed"), (2, "partial")])
def test_what_the_gateway_has_no_more_stays_missing(start: Start, images: int, status: str) -> None:
    live = start()
    job = live.make(ULTRA | {"num_images": images}, fault="single_use_link")
    assert job["status"] == "archived", job["error"]
    lost, *others = live.outputs(job["id"])
    lose(live, lost)
    ended = retry(live, job["id"])
    assert (ended["status"], ended["error"]["code"]) == (status, "image_expired")
    assert ended["missing"] == [lost["id"]]
    assert ask(live, lost).status_code == 410
    assert [ask(live, one).status_code for one in others] == [200] * len(others)


def test_nothing_is_written_over_what_is_in_its_place(start: Start) -> None:
    live, output = archived(start)
    lose(live, output, b"abc")
    answer = live.http.post(f"/v1/jobs/{output['job_id']}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_retryable")
    assert "delete that object" in answer.json()["detail"]
    assert live.bucket.store.read(output["key"], max_bytes=9) == b"abc"
    lose(live, output)
    assert retry(live, output["job_id"])["status"] == "archived"


def test_a_lost_record_is_said(start: Start) -> None:
    live, output = archived(start)
    live.bucket.store.delete(live.bucket.archive.record_key(live.job(output["job_id"])))
    answer = ask(live, output, "record")
    assert (answer.status_code, answer.json()["code"]) == (410, "record_missing")
    assert answer.json()["object"]["key"].endswith(f"{output['job_id']}.json")
    with visiting(live.url) as visitor:
        assert "record of this job is no longer in the bucket" in visitor.get(f"/outputs/{output['id']}").html
    assert ask(live, output).status_code == 200
