"""Images that break off, stall, lie about their length, are gone, or lead inwards."""

from typing import Any

import pytest

from tests.faults.scenes import Stage
from tests.faults.test_gateway_faults import undelayed


@pytest.mark.parametrize(
    ("name", "fault", "options", "variables"),
    [
        ("image reset in the middle", "reset_image", {}, {}),
        ("image cut off", "truncated_image", {}, {}),
        ("image of wrong length", "wrong_length", {"off_by": -10}, {}),
        ("image of wrong length", "wrong_length", {"off_by": 10}, {}),
        ("a page for an image", "html_image", {}, {}),
        ("image link expired", "expired_link", {"status": 403}, {}),
        ("image stalls", "stalled_image", {}, {"DARKROOM_DOWNLOAD__TIMEOUT": "1"}),
    ],
)
def test_a_spoiled_download_is_tried_again(
    stage: Stage, name: str, fault: str, options: dict[str, int], variables: dict[str, Any]
) -> None:
    """Two downloads of each image are spoiled, and the third one is archived."""
    wish = {"fault": fault, "times": 2, **options}
    each = 1 if variables else 3
    with stage.scene(name, **variables) as scene:
        jobs = scene.submit("apiframe", each=each, fault=wish)
        jobs += scene.submit("api-in-one", each=1, fault=wish, num_images=each)
        scene.archived(jobs)


def test_stalled_images_of_one_gateway_leave_the_other_alone(stage: Stage) -> None:
    with stage.scene("image stalls") as scene:
        jobs = scene.submit("apiframe", each=10, fault={"fault": "stalled_image", "times": 1})
        undelayed(scene, "api-in-one")

        # Those who still wait are set free, because they would for twenty seconds.
        def freed() -> bool:
            scene.wires.gateway("apiframe").down()
            scene.wires.gateway("apiframe").up()
            return set(scene.places(jobs)) == {"archived"}

        scene.until(freed)


def test_images_that_can_never_be_had(stage: Stage) -> None:
    with stage.scene("image never whole", timing={"retention": 3}) as scene:
        reset = scene.submit("apiframe", each=2, fault="reset_image")
        short = scene.submit("api-in-one", each=2, fault={"fault": "wrong_length", "off_by": -10})
        gone = scene.submit(each=2, fault={"fault": "expired_link", "forever": True})
        whole = scene.submit(each=2)
        scene.failed(reset + short, "image_truncated")
        scene.failed(gone, "image_expired")
        scene.archived(whole)


def test_images_that_lead_inwards(stage: Stage) -> None:
    with stage.scene("image redirects inwards", timing={"retention": 3}) as scene:
        inwards = scene.submit(each=2, fault="redirect_image")
        for url in ("http://10.0.0.1/", "http://[::1]:80/", "http://2130706433/", "file:///etc/passwd"):
            inwards += scene.submit(fault={"fault": "redirect_image", "url": url})
        whole = scene.submit(each=2)
        scene.archived(whole)
        for job in scene.finish(inwards):
            assert job["status"] == "failed"
            assert job["error"]["code"] in {"forbidden_address", "unknown_image_host"}, job["error"]
        assert len(list(scene.world.store.list(f"{scene.world.prefix}images/"))) == len(whole)


def test_one_image_of_three_is_never_there(stage: Stage) -> None:
    with stage.scene("one image missing") as scene:
        jobs = scene.submit("api-in-one", each=3, fault="partial_images", num_images=3)
        for job in scene.finish(jobs):
            assert (job["status"], len(job["outputs"])) == ("partial", 2)
            assert job["error"]["code"] == "image_expired"
