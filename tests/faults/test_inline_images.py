"""Images that stand in the gateway's answer itself: the delivery, or the gateway, has the only bytes."""

import json

import pytest

from tests.faults.scenes import GATEWAYS, Scene, Stage

STARTS = ("iVBORw0KGgo", "/9j/", "base64,/")
"""How an image begins in base64."""


def kept_once(scene: Scene) -> None:
    """See that no image is kept beside the archive: not in the ledger, in a record or in the log."""
    bodies = [bytes(row["body"]).decode() for row in scene.world.rows("SELECT body FROM deliveries")]
    replies = [str(row["reply"]) for row in scene.world.rows("SELECT reply FROM jobs")]
    store, prefix = scene.world.store, f"{scene.world.prefix}records/"
    records = [store.read(found.key, max_bytes=1_000_000).decode() for found in store.list(prefix)]
    for text in (*bodies, *replies, *records, scene.world.log.read_text()):
        assert not any(start in text for start in STARTS), text
    for record in records:
        (output,) = json.loads(record)["outputs"]
        assert output["source_url"] is None
        assert "came in the gateway's answer itself" in record


@pytest.mark.smoke
def test_images_in_answers_are_archived(stage: Stage) -> None:
    with stage.scene("image in the answer") as scene:
        scene.archived(scene.submit(each=2, fault="inline_image"))
        kept_once(scene)


def test_an_image_in_a_callback_outlives_a_kill(stage: Stage) -> None:
    """The bucket is away, the service is killed, and the gateway is gone: the delivery has the bytes."""
    with stage.scene("image in the callback, then a kill") as scene:
        scene.archived(scene.submit("apiframe", fault="inline_image"))
        scene.wires.s3.down()
        jobs = scene.submit("apiframe", each=2, fault="inline_image")
        scene.until(lambda: set(scene.places(jobs)) == {"ready"})
        scene.wires.gateway("apiframe").down()
        scene.world.kill()
        scene.wires.s3.up()
        scene.world.start()
        scene.archived(jobs)
        kept_once(scene)
        scene.wires.gateway("apiframe").up()


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize(
    ("where", "fault"),
    [("the answer to the submission", "inline_answer"), ("a poll", "inline_image+no_callback")],
)
def test_an_image_in_an_answer_outlives_a_kill(stage: Stage, gateway: str, where: str, fault: str) -> None:
    """In the answer to the submission or to a poll: it is kept like a callback, though nobody asks again."""
    with stage.scene(f"image in {where}, then a kill") as scene:
        scene.archived(scene.submit(gateway, fault=fault))
        scene.wires.s3.down()
        jobs = scene.submit(gateway, each=2, fault=fault)
        scene.until(lambda: set(scene.places(jobs)) == {"ready"})
        scene.wires.gateway(gateway).down()
        scene.world.kill()
        scene.wires.s3.up()
        scene.world.start()
        scene.archived(jobs)
        kept_once(scene)
        scene.wires.gateway(gateway).up()
