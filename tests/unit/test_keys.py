from contextlib import suppress

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from storage.archive.keys import FIELDS, MOST_BYTES, MOST_PART_BYTES, RESERVED, Keys
from storage.models import Job, JobRequest, Status

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
        "Thumbnails/{job_id}/{index}",
        "darkroom-probes/{job_id}/{index}",
        "manifests/{job_id}/{index}",
        "trash/{job_id}/{index}",
        "images//{job_id}/{index}",
        "{job_id}/{index}/",
        "images\n/{job_id}/{index}",
        "x" * 201 + "/{job_id}/{index}",
        "{job_id}/{index}" + "/x" * 500,
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


@pytest.mark.parametrize("name", [*sorted(RESERVED), "Records", "TRASH"])
def test_no_tag_or_model_leads_to_reserved_folders(name: str) -> None:
    by_tag = Keys(prefix="team/", template="{tag:x}/{job_id}/{index}")
    by_model = Keys(template="{model}/{job_id}/{index}")
    by_pieces = Keys(template=name[:3] + "{tag:x}/{job_id}/{index}")
    assert image(by_tag, job(x=name)) == f"team/_{name}/0192-id/2"
    assert image(by_model, job(model=name)) == f"_{name}/0192-id/2"
    assert image(by_pieces, job(x=name[3:])) == f"_{name}/0192-id/2"
    later = Keys(template="art/{tag:x}/{job_id}/{index}")
    assert image(later, job(x=name)) == f"art/{name}/0192-id/2"


def test_a_part_that_ends_in_a_dot_is_closed() -> None:
    keys = Keys(template="a{tag:x}/v1./{job_id}/{index}")
    assert image(keys, job(x="b" + "." * 70 + "c")) == f"ab{'.' * 63}_/v1._/0192-id/2"


def test_a_value_is_cut_by_bytes_between_characters() -> None:
    keys = Keys(template="{tag:x}/{job_id}/{index}")
    assert image(keys, job(x="x" * 256)) == "x" * 64 + "/0192-id/2"
    assert image(keys, job(x="é" * 256)) == "é" * 64 + "/0192-id/2"
    assert image(keys, job(x="画" * 256)) == "画" * 42 + "/0192-id/2"
    assert image(keys, job(x="𠀀" * 256)) == "𠀀" * 32 + "/0192-id/2"


def faults(keys: Keys, gateway: str, job: Job) -> list[dict[str, str]]:
    return keys.faults(gateway, job.request.model, job.request.tags)


def test_what_is_too_long_is_named_at_once() -> None:
    long, keys = "𠀀" * 256, Keys(template="{tag:a}-{tag:b}/{tag:c}/{model}-{gateway}/{job_id}/{index}")
    for template in ("{tag:x}-{job_id}-{index}.{ext}", "{job_id}/{index}/{tag:x}-{sha256}.{ext}"):
        assert faults(Keys(template=template), "api-in-one", job(x=long)) == [], "one always fits"
    assert faults(keys, "apiframe", job(a=long, b="x", c=long, model=long)) == []
    (fault,) = faults(keys, "apiframe", job(a=long, b=long, c=long))
    assert fault["field"] == "tags"
    assert "257 bytes" in fault["message"]
    assert fault["message"].endswith("200 is the most: shorten tag:a or tag:b")
    (fault,) = faults(Keys(template="{model}{model}/{job_id}/{index}"), "apiframe", job(long))
    assert (fault["field"], fault["message"].rpartition(": ")[2]) == ("model", "shorten model")
    keys = Keys(template="/".join("{tag:x}" for _ in range(8)) + "/{job_id}/{index}")
    assert faults(keys, "apiframe", job(x="x" * 64)) == []
    (fault,) = faults(keys, "apiframe", job(x="𠀀" * 32))
    assert "1000 is the most: shorten tag:x" in fault["message"], "a whole key has a limit too"


@pytest.mark.parametrize("prefix", ["p" * 501, "p" * 195])
def test_a_prefix_must_leave_room(prefix: str) -> None:
    with pytest.raises(ValueError, match="bytes"):
        Keys(prefix=prefix)


RECORDS = {"a": "record\N{LATIN SMALL LETTER LONG S}", "b": "ords"}
PIECES = st.sampled_from([*(f"{{{name}}}" for name in sorted(FIELDS)), "{tag:a}", "{tag:b}", "{tag:c}"])
LITERALS = st.text(st.sampled_from("recodstahumbnilfp-./_é{}"), max_size=12) | st.sampled_from(["/", "rec"])
TEMPLATES = st.lists(PIECES | LITERALS, max_size=12).map("".join)
VALUES = st.text(min_size=1, max_size=256) | st.sampled_from([*sorted(RESERVED), "ords", "..", "𠀀" * 99])
TAGS = st.dictionaries(st.sampled_from("abc"), VALUES)


@given(TEMPLATES, st.sampled_from(["", "team/", "team-"]), VALUES, TAGS)
@example("{tag:a}/", "", "imagen", RECORDS)
@example("rec{tag:b}/", "", "imagen", RECORDS)
@example("{model}/", "team-", "Thumbnails", {})
def test_no_key_lies_where_it_must_not(template: str, prefix: str, model: str, tags: dict[str, str]) -> None:
    keys, made = None, job(model, **tags)
    with suppress(ValueError):
        keys = Keys(prefix=prefix, template=template + "{job_id}/{index}.{ext}")
    assume(keys is not None)
    assert keys is not None
    key = image(keys, made)
    assert key.startswith(prefix)
    first, *_ = parts = key.removeprefix(prefix).split("/")
    assert first.casefold() not in RESERVED
    assert not any(part == "" or part.endswith(".") for part in parts)
    assert key.isprintable()
    if not faults(keys, "apiframe", made):
        assert len(key.encode()) <= MOST_BYTES
        assert max(len(part.encode()) for part in key.split("/")) <= MOST_PART_BYTES
