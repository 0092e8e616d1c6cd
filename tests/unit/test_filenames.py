"""Names of files, by table: any script, and whatever a hostile prompt may hold."""

import re
import unicodedata
from dataclasses import replace
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receiver.api.filenames import FileName, file_name
from storage.archive.s3 import content_disposition
from storage.models import Job, JobRequest, Output, Status

JOB_ID = "01a201ee-8cc4-7255-b42d-d6cf39ac8954"
OUTPUT = Output(
    job_id=JOB_ID, index=1, key="images/1.png", sha256="0" * 64, bytes=9, media_type="image/png",
    width=1, height=1, stored_at=0,
)  # fmt: skip


def named(prompt: str, output: Output = OUTPUT) -> FileName:
    request = JobRequest(model="m", prompt=prompt)
    job = Job(JOB_ID, "apiframe", Status.ARCHIVED, request, created_at=0, updated_at=0, next_attempt_at=None)
    return file_name(job, output)


@pytest.mark.parametrize(
    ("prompt", "name", "plain"),
    [
        ("A red kite, over the sea!", "a-red-kite-over-the-sea", "a-red-kite-over-the-sea"),
        ("Bäume im Café", "bäume-im-café", "baume-im-cafe"),
        ("红色的风筝", "红色的风筝", "image"),
        ("воздушный змей 4K", "воздушный-змей-4k", "4k"),
        ("लाल पतंग", "लाल-पतंग", "image"),
        ("طائرة ورقية", "طائرة-ورقية", "image"),
        ("🪁🪁🪁", "image", "image"),
        ("kite 🪁 2", "kite-2", "kite-2"),
        ("", "image", "image"),
        ('"; filename="evil.exe', "filename-evil-exe", "filename-evil-exe"),
        ("../../etc/passwd\\..\\x", "etc-passwd-x", "etc-passwd-x"),
        ("a\r\nSet-Cookie: b=c", "a-set-cookie-b-c", "a-set-cookie-b-c"),
        ("%2e%2e%2f%00", "2e-2e-2f-00", "2e-2e-2f-00"),
        ("a\u202egpj.exe\x00\ud800", "a-gpj-exe", "a-gpj-exe"),
        ("x" * 5000, "x" * 60, "x" * 60),
        ("word " * 1000, "word" + "-word" * 11, "word" + "-word" * 11),
        ("𠀀" * 5000, "𠀀" * 30, "image"),
    ],
)
def test_a_name_is_the_prompts_beginning_in_its_script(prompt: str, name: str, plain: str) -> None:
    assert named(prompt) == FileName(f"{name}-39ac8954-1.png", f"{plain}-39ac8954-1.png")


def test_the_extension_is_that_of_the_bytes() -> None:
    of = {
        kind: named("a", replace(OUTPUT, media_type=kind)).plain
        for kind in ("image/jpeg", "image/webp", "image/avif", "text/html")
    }
    assert [name.rpartition(".")[2] for name in of.values()] == ["jpg", "webp", "avif", "bin"]


@example("\U0001d54a \ufdfa \ufb01 \u0130 \u3392 \u0301a")  # signs that decompose into others
@given(st.text(max_size=700))
def test_no_prompt_makes_a_name_that_harms(prompt: str) -> None:
    made = named(prompt)
    assert re.fullmatch(r"[a-z0-9-]{1,60}-39ac8954-1\.png", made.plain)
    assert not made.name.startswith(("-", "."))
    assert {unicodedata.category(sign)[0] for sign in made.name[:-6]} <= set("LNM") | {"P"}
    assert len(made.name.encode()) <= 200
    header = content_disposition("attachment", made.name, made.plain)
    assert header.isascii()
    assert header.isprintable()
    found = re.fullmatch(r"attachment; filename=\"([^\"\\]+)\"; filename\*=UTF-8''([^ '\"]+)", header)
    assert found
    assert (found[1], unquote(found[2])) == (made.plain, made.name)
