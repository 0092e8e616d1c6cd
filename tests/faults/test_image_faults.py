"""Images that break off, stall, lie about their length, are gone, or lead inwards."""

from __future__ import annotations

import json

import pytest

from tests.faults.scenes import Scene, Stage
from tests.faults.test_gateway_faults import undelayed

PATIENT = {"downloads": (0, 0.05, 0.1, 0.2)}


def broken(scene: Scene, fault: str, **options: object) -> None:
    """Two downloads of each image are spoiled, and the third one is archived."""
    wish = {"fault": fault, "times": 2, **options}
    jobs = scene.submit("apiframe", each=3, fault=wish)
    jobs += scene.submit("api-in-one", each=3, fault=wish, num_images=2)
    scene.archived(jobs)


def records(scene: Scene) -> list[dict[str, object]]:
    """Every record in the bucket."""
    store, prefix = scene.world.store, scene.world.prefix
    keys = [found.key for found in store.list(f"{prefix}records/")]
    return [json.loads(store.read(key, max_bytes=10**6)) for key in keys]


@pytest.mark.parametrize(
    ("name", "fault", "options"),
    [
        ("image reset in the middle", "reset_image", {}),
        ("image cut off", "truncated_image", {}),
        ("image of wrong length", "wrong_length", {"off_by": -10}),
        ("image of wrong length", "wrong_length", {"off_by": 10}),
        ("a page for an image", "html_image", {}),
        ("image link expired", "expired_link", {"status": 403}),
    ],
)
def test_a_spoiled_download_is_tried_again(
    stage: Stage, name: str, fault: str, options: dict[str, object]
) -> None:
    with stage.scene(name) as scene:
        broken(scene, fault, **options)


def test_a_stalled_download_is_given_up_and_tried_again(stage: Stage) -> None:
    with stage.scene("image stalls", DARKROOM_DOWNLOAD__TIMEOUT="1") as scene:
        broken(scene, "stalled_image")


def test_stalled_images_of_one_gateway_leave_the_other_alone(stage: Stage) -> None:
    with stage.scene("image stalls", DARKROOM_DOWNLOAD__TIMEOUT="5") as scene:
        jobs = scene.submit("apiframe", each=10, fault={"fault": "stalled_image", "times": 1})
        undelayed(scene, "api-in-one")
        scene.archived(jobs, within_s=30)


@pytest.mark.parametrize(
    ("name", "fault", "options", "code"),
    [
        ("image reset in the middle", "reset_image", {}, "image_truncated"),
        ("image of wrong length", "wrong_length", {"off_by": -10}, "image_truncated"),
        ("image link expired", "expired_link", {"forever": True}, "image_expired"),
        ("image redirects inwards", "redirect_image", {}, "forbidden_address"),
        ("image redirects inwards", "redirect_image", {"url": "http://10.0.0.1/"}, "forbidden_address"),
        ("image redirects inwards", "redirect_image", {"url": "http://[::1]:80/"}, "forbidden_address"),
    ],
)
def test_an_image_that_can_never_be_had(
    stage: Stage, name: str, fault: str, options: dict[str, object], code: str
) -> None:
    with stage.scene(name) as scene:
        spoiled = scene.submit(each=2, fault={"fault": fault, **options})
        whole = scene.submit(each=2)
        scene.failed(spoiled, code)
        scene.archived(whole)


def test_one_image_of_three_is_never_there(stage: Stage) -> None:
    with stage.scene("one image missing") as scene:
        jobs = scene.submit("api-in-one", each=3, fault="partial_images", num_images=3)
        for job in scene.finish(jobs):
            assert (job["status"], len(job["outputs"])) == ("partial", 2)
            assert job["error"]["code"] == "image_expired"
