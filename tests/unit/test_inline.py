"""Images in text: each is found in every spelling, and nothing else is taken for one."""

import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.media.inline import is_base64_image, without_images
from tests.unit.test_media import SMALL, SVG, picture

MEDIA = Path(__file__).parents[1] / "samples" / "media"
IMAGES = {
    **SMALL,
    "gif": picture("GIF", (9, 7)),
    "svg": SVG,
    "jpeg xl": (MEDIA / "9000x700.jxl").read_bytes(),
}
LONG = "a1/b-2_c" * 80
"""As long as an image, and none."""


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_redacted_in_every_spelling(name: str) -> None:
    text = b64(IMAGES[name])
    spellings = {
        "bare": text,
        "with a type": f"data:image/x;base64,{text}",
        "of any type": f"data:application/octet-stream;base64,{text}",
        "with parameters": f"data:image/x;name=a;base64,{text}",
        "for URLs": base64.urlsafe_b64encode(IMAGES[name]).decode().rstrip("="),
        "in lines": base64.encodebytes(IMAGES[name]).decode(),
    }
    for spelling, value in spellings.items():
        plain = json.dumps({"b64_json": value, "id": "a"})
        for body in (
            plain,
            plain.replace("/", "\\/"),
            plain.replace("/", "\\u002f"),
            json.dumps({"r": plain}),
        ):
            kept = without_images(body.encode()).decode()
            assert json.loads(kept)
            assert "[removed]" in kept, spelling
            assert text[60:90] not in kept, spelling
            assert len(kept) < 120, spelling


def test_an_image_that_is_not_in_base64_is_redacted() -> None:
    uri = "data:image/svg+xml;utf8," + SVG.decode()
    kept = without_images(json.dumps({"url": uri, "seed": 7}).encode())
    assert json.loads(kept) == {"url": "data:image/svg+xml;utf8,[removed]", "seed": 7}


@pytest.mark.parametrize(
    "value",
    [
        f"https://cdn.example/{LONG}.png",
        f"https://cdn.example/{b64(SMALL['png'])}",
        f"https://cdn.example/a?image={b64(SMALL['jpeg'])}",
        f"http%3A%2F%2Fcdn.example%2F{b64(SMALL['png'])}",
        f"//cdn.example/{LONG}",
        f"cdn.example/{b64(SMALL['png'])}",
        f"/workspace/{LONG}"[:500],
        LONG,
        b64(os.urandom(600)),
        b64(b"%PDF-1.7" + bytes(600)),
        "eyJhbGciOiJIUzI1NiJ9." + LONG,
    ],
)
def test_what_is_no_image_stays(value: str) -> None:
    for body in (json.dumps({"url": value}), json.dumps({"r": json.dumps({"urls": [value, value]})})):
        assert without_images(body.encode()) == body.encode()


def test_a_short_path_is_no_jpeg_xl() -> None:
    path = "/workspace/pictures/of/the/old/days/at/the/sea"
    assert base64.b64decode(path[:8])[:2] == b"\xff\x0a"
    assert not is_base64_image(path.encode())


@given(st.binary(max_size=300))
def test_nothing_is_raised(text: bytes) -> None:
    without_images(text)
    is_base64_image(text)
