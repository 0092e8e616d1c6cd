"""Stores that are down or overloaded, write and do not say so, are taken, or give false digests."""

import hashlib
import io
from collections.abc import Callable

import pytest

from tests.faults import harm
from tests.faults.harm import Action, Call
from tests.faults.scenes import MAY_FAIL, Scene, Stage
from tests.faults.wire import damaged
from tests.faults.world import Accepted

IMAGES, RECORDS = r"/images/", r"/records/"


def image_keys(scene: Scene) -> list[str]:
    return [found.key for found in scene.world.store.list(f"{scene.world.prefix}images/")]


def once_each(scene: Scene, jobs: list[Accepted]) -> None:
    scene.archived(jobs)
    assert len(image_keys(scene)) == len(jobs)


def test_a_store_that_is_down_for_a_minute(stage: Stage) -> None:
    with stage.scene("store down for a minute") as scene:
        scene.archived(scene.submit(each=1))
        scene.wires.s3.down()
        jobs = scene.submit(each=4)
        scene.until(lambda: set(scene.places(jobs)) == {"ready"})
        for seconds in (20, 40, 60):
            scene.world.clock.set(seconds)
            scene.until(lambda: waiting(scene, jobs, "storage_unavailable"))
        assert scene.answers("/readyz") == 503
        assert scene.answers("/healthz") == 200
        scene.wires.s3.up()
        scene.archived(jobs)
        scene.until(lambda: scene.answers("/readyz") == 200)


def waiting(scene: Scene, jobs: list[Accepted], code: str) -> bool:
    """Whether some of these jobs are ready and say that they wait, and none is lost."""
    shown = [scene.world.get(f"/v1/jobs/{job.job_id}") for job in jobs]
    assert {job["status"] for job in shown} == {"ready"}
    return any((job["error"] or {}).get("code") == code for job in shown)


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("store answers 500", harm.s3_error(500, "InternalError")),
        ("store answers 503 SlowDown", harm.s3_error(503, "SlowDown")),
        ("store answers 409", harm.s3_error(409, "ConditionalRequestConflict")),
        ("store drops connections", harm.drop),
        ("store resets connections", harm.reset),
    ],
)
def test_writes_that_the_store_refuses_for_a_while(stage: Stage, name: str, action: Action) -> None:
    with stage.scene(name) as scene:
        armed = [scene.wires.s3.arm(action, method="PUT", path=path, times=10) for path in (IMAGES, RECORDS)]
        once_each(scene, scene.submit(each=3))
        assert [fault.struck for fault in armed] == [10, 10]


@pytest.mark.smoke
def test_writes_that_took_place_although_the_answer_did_not_come(stage: Stage) -> None:
    with stage.scene("write done, answer lost") as scene:
        for path in (IMAGES, RECORDS):
            scene.wires.s3.arm(harm.swallow, method="PUT", path=path, times=6)
        once_each(scene, scene.submit(each=3))
        again = [call for call in scene.wires.s3.calls if call.answered and call.answered.status == 412]
        assert len(again) >= 6, "a repeated write is refused because the first one was done"


def test_a_store_that_says_nothing_for_a_while(stage: Stage) -> None:
    with stage.scene("store hangs") as scene:
        armed = scene.wires.s3.arm(harm.swallow_and_stall, method="PUT", path=IMAGES, times=4)
        jobs = scene.submit(each=3)
        armed.wait(4)
        scene.wires.s3.down()
        scene.wires.s3.up()
        once_each(scene, jobs)


def test_412_because_the_very_same_image_is_there(stage: Stage) -> None:
    with stage.scene("412: same image there") as scene:
        scene.wires.s3.arm(planting(scene, lambda body: body), method="PUT", path=IMAGES)
        once_each(scene, scene.submit(each=3))


def test_412_because_another_image_is_there(stage: Stage) -> None:
    with stage.scene("412: other object there", timing={"retention": 2}) as scene:
        armed = scene.wires.s3.arm(planting(scene, lambda _: b"not ours"), method="PUT", path=IMAGES, times=2)
        jobs = scene.submit("apiframe", each=2, fault=MAY_FAIL)
        scene.failed(jobs, "archive_conflict")
        assert armed.struck == 2
        scene.archived(scene.submit(each=2))
        assert "archive contradicts" in scene.world.log.read_text()
        planted = [key for key in image_keys(scene) if any(job.job_id in key for job in jobs)]
        assert [scene.world.store.read(key, max_bytes=100) for key in planted] == [b"not ours"] * 2
        for key in planted:
            scene.world.store.delete(key)


def planting(scene: Scene, other: Callable[[bytes], bytes]) -> Action:
    """Put another object under the key just before a write of it."""

    def plant(call: Call) -> None:
        mark, headers = "x-amz-meta-", call.request.headers
        metadata = {name.removeprefix(mark): text for name, text in headers.items() if mark in name}
        key = call.request.path.partition("?")[0].split("/", 2)[2]
        body = other(call.request.body)
        scene.world.store.put_new(
            key,
            io.BytesIO(body),
            size=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
            content_type="image/png",
            metadata=metadata,
        )
        harm.pass_on(call)

    return plant


FALSE_DIGEST = harm.altered(lambda told: told.with_header("x-amz-checksum-sha256", "A" * 43 + "="))


@pytest.mark.parametrize("times", [1, None], ids=["once", "always"])
def test_a_false_digest(stage: Stage, times: int | None) -> None:
    """What the store says of an object is contradicted by the object: the bytes decide."""
    with stage.scene("store gives false digest") as scene:
        armed = scene.wires.s3.arm(FALSE_DIGEST, method="PUT|HEAD", path=IMAGES, times=times)
        once_each(scene, scene.submit(each=2))
        assert armed.struck >= 1


def test_damaged_records_are_not_believed(stage: Stage) -> None:
    with stage.scene("record read back damaged") as scene:
        # Only what the answer to the write does not prove is read back.
        scene.wires.s3.arm(FALSE_DIGEST, method="PUT", path=RECORDS)
        armed = scene.wires.s3.arm(harm.altered(damaged), method="GET", path=RECORDS, times=2)
        scene.archived(scene.submit(each=2))
        assert armed.struck == 2


RESERVED = ("darkroom-probes", "records", "thumbnails")


def test_albums_named_as_what_darkroom_keeps_for_itself(stage: Stage) -> None:
    """A start tries the store out with objects of its own; the images must outlive it."""
    template = "{tag:album}/{job_id}/{index}.{ext}"
    with stage.scene("album named as Darkroom's own places", DARKROOM_KEY_TEMPLATE=template) as scene:
        jobs = [job for album in RESERVED for job in scene.submit(tags={"album": album})]
        scene.archived(jobs)
        before = images_of(scene, jobs)
        scene.world.kill()
        scene.world.start()
        assert images_of(scene, jobs) == before


def images_of(scene: Scene, jobs: list[Accepted]) -> list[bytes]:
    outputs = [scene.world.get("/v1/outputs", job=job.job_id)["outputs"] for job in jobs]
    return [scene.world.store.read(output["key"], max_bytes=1_000_000) for (output,) in outputs]
