from __future__ import annotations

import pytest

from storage.keys import Keys
from storage.records import Job, JobRequest, Status

NOON = 1_795_348_800_000  # 2026-11-22T12:00:00Z


def job(model: str = "imagen-4", **tags: str) -> Job:
    request = JobRequest(model=model, prompt="a red kite", tags=tags)
    return Job("0192-id", "apiframe", Status.READY, request, NOON, NOON, NOON)


def image(keys: Keys, made: Job) -> str:
    return keys.image(made, 2, extension="png", sha256="abc")


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("images/{date}/{job_id}/{index}.{ext}", "images/2026/11/22/0192-id/2.png"),
        ("{gateway}/{model}/{job_id}-{index}-{sha256}", "apiframe/imagen-4/0192-id-2-abc"),
        ("{tag:campaign}/{job_id}/{index}", "spring-sale/0192-id/2"),
        ("{tag:missing}/{job_id}/{index}", "none/0192-id/2"),
    ],
)
def test_a_key_follows_its_template(template: str, key: str) -> None:
    assert image(Keys(template=template), job(campaign="spring sale")) == key


@pytest.mark.parametrize("value", ["../../etc", "a/b", "..", "/", "\x00", " ", "a\nb"])
def test_a_tag_cannot_climb_out_of_its_place(value: str) -> None:
    key = image(Keys(template="{tag:who}/{job_id}/{index}"), job(who=value))
    assert key.count("/") == 2
    assert ".." not in key
    assert key.isprintable()


@pytest.mark.parametrize(
    "template",
    [
        "{date}/{index}.png",
        "{job_id}.png",
        "{job_id}/{index}/{nonsense}",
        "{job_id}/{index}/{tag:}",
        "/{job_id}/{index}",
        "../{job_id}/{index}",
        "records/{job_id}/{index}",
        "{job_id/{index}",
    ],
)
def test_a_template_that_could_lose_images_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Keys(template=template)


def test_the_prefix_comes_before_every_key() -> None:
    keys = Keys(prefix="team/")
    assert image(keys, job()) == "team/images/2026/11/22/0192-id/2.png"
    assert keys.record(job()) == "team/records/2026/11/22/0192-id.json"
