import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pathvalidate import validate_filename

from receiver.client.filenames import BadTemplate, Template, day_of, key_of, with_id
from receiver.schemas.output import Output

OUTPUT = Output(
    id="01a201ee-8cc4-7255-b42d-d6cf39ac8954.1",
    job_id="01a201ee-8cc4-7255-b42d-d6cf39ac8954",
    index=1,
    key="images/2026/11/22/01a201ee-8cc4-7255-b42d-d6cf39ac8954/1.png",
    sha256="1017830d43dbb696fa9f6f990f961af8e4fbf40207978c356f758237aa4f87f1",
    bytes=3,
    media_type="image/png",
    width=1,
    height=1,
    seed=None,
    seed_requested="42",
    stored_at="2026-11-23T06:25:41.062Z",
    gateway="api-in-one",
    model="imagen4",
    prompt="A Red Kite, over the sea!",
    tags={"campaign": "May Sale"},
    model_requested="imagen4",
    version_id=None,
    image_url="",
    thumbnail_url="",
)
EVERYTHING = "{date}/{gateway}/{model}/{tag.campaign}/{tag.none}/{prompt:40}-{seed}-{index}.{ext}"


def test_every_field_has_its_place() -> None:
    day = day_of(OUTPUT)
    name = f"{day}/api-in-one/imagen4/May-Sale/none/a-red-kite-over-the-sea-42-1.png"
    assert Template(EVERYTHING).name(OUTPUT) == name
    assert Template("{id}_{job_id}_{sha256:8}").name(OUTPUT) == f"{OUTPUT.id}_{OUTPUT.job_id}_1017830d"
    assert Template("{prompt:5}{{}}").name(OUTPUT) == "a-red{}", "no dash is left at the end"
    assert Template("{seed}.{ext}").name(OUTPUT.model_copy(update={"seed": "7"})) == "7.png"


def test_the_day_is_that_of_the_job_as_in_keys() -> None:
    assert day_of(OUTPUT) == "2026-11-22"
    assert day_of(OUTPUT.model_copy(update={"job_id": "not-one"})) == "2026-11-23"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("..", "none"),
        ("", "none"),
        ("C:\\Windows\\system32", "c-windows-system32"),
        (".bashrc", "bashrc"),
        ("-rf *", "rf"),
        ("a\x00b\nc\x1b[31m", "a-b-c-31m"),
        ("CON", "_con"),
        ("nul.txt", "_nul.txt"),
        ("com¹", "_com¹"),
        ("ends with dots...", "ends-with-dots"),
        ("寿司と茶", "寿司と茶"),
        ("हिन्दी में", "हिन्दी-में"),
        ("Ünïcödé", "ünïcödé"),
        ("u\u0308", "ü"),
        ("❤️🔥", "none"),
        ("abc\u202etxt.exe", "abc-txt.exe"),
        ("<script>alert(1)</script>", "script-alert-1-script"),
        ("$(rm -rf ~) `x` 'q'", "rm-rf-x-q"),
        ("a/b\\c:d*e?f\"g<h>i|j", "a-b-c-d-e-f-g-h-i-j"),
        ("\ud800", "none"),
    ],
)  # fmt: skip
def test_hostile_prompts_become_plain_names(text: str, name: str) -> None:
    made = Template("{prompt}").name(OUTPUT.model_copy(update={"prompt": text}))
    assert made == name
    validate_filename(made, platform="universal", max_len=255)


HOSTILE = st.text(
    st.one_of(st.characters(exclude_categories=()), st.sampled_from("./\\:~-_ \x00\u202e…．／")),  # noqa: RUF001
    max_size=300,
)


@given(prompt=HOSTILE, tag=HOSTILE, model=HOSTILE, key=HOSTILE, seed=HOSTILE, job=HOSTILE)
def test_no_name_leaves_its_folder(prompt: str, tag: str, model: str, key: str, seed: str, job: str) -> None:
    rest = {"model": model, "key": key, "seed": seed, "job_id": job, "stored_at": job}
    hostile = OUTPUT.model_copy(update={"prompt": prompt, "tags": {"campaign": tag}, **rest})
    for template in (EVERYTHING, "{prompt}", "{tag.campaign}/{model}.{ext}", ".{seed}. ", "x{ext}"):
        name = Template(template).name(hostile)
        path = (Path("/folder") / name).resolve()
        assert path.is_relative_to("/folder")
        assert path != Path("/folder")
        for part in name.split("/"):
            validate_filename(part, platform="universal", max_len=255)
            # Room for the id, the hidden part file and the record beside it.
            assert len(with_id(part, OUTPUT).encode()) <= 230
            assert not any(unicodedata.category(sign) in {"Cc", "Cf", "Cs"} for sign in part)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("", "end in the name"),
        ("a/", "end in the name"),
        ("/etc/{id}", "below the folder"),
        ("../{id}", "below the folder"),
        ("a/../{id}", "below the folder"),
        ("a\\{id}", "not have"),
        ("C:{id}", "not have"),
        ("{name}", "{name} is not a field"),
        ("{tag.}", "is not a field"),
        ("{}", "is not a field"),
        ("{prompt:x}", "only a length"),
        ("{prompt:0}", "only a length"),
        ("{prompt!r}", "only a length"),
        ("{id", "expected '}'"),
        ("{id.__class__}", "is not a field"),
        ("{id}\udcff", "can be seen"),
        ("/".join("a" * 17), "16 parts"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_told(template: str, told: str) -> None:
    with pytest.raises(BadTemplate, match=told.replace("{", r"\{").replace("}", r"\}")):
        Template(template)


def test_names_that_are_one_to_some_file_system() -> None:
    assert key_of("Kite.PNG") == key_of("kite.png")
    assert key_of("u\u0308") == key_of("ü")
    assert with_id("a.b/kite.png", OUTPUT) == f"a.b/kite-{OUTPUT.id}.png"
    assert with_id("a.b/kite", OUTPUT) == f"a.b/kite-{OUTPUT.id}"
