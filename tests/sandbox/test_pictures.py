import io
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from receiver.sandbox.core.pictures import Spec, Studio, draw, size_of

KITE = Spec("a red kite", "imagen-4", width=96, height=96)


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def test_size_follows_the_aspect_ratio() -> None:
    asked = {
        ("3:4", 1024): (896, 1280),
        ("16:9", 2048): (2816, 1536),
        ("1:1", 64): (64, 64),
        ("1024x512", 1024): (1472, 704),
        ("100:1", 1024): (2048, 512),
        ("0:1", 1024): (1024, 1024),
        ("match_input_image", 1024): (1024, 1024),
    }
    assert {key: size_of(*key) for key in asked} == asked


@pytest.mark.parametrize("size", [(140, 76), (1536, 1100)])
@pytest.mark.parametrize(("extension", "kind"), [("png", "PNG"), ("jpg", "JPEG")])
def test_file_has_its_format_and_size(extension: str, kind: str, size: tuple[int, int]) -> None:
    picture = opened(draw(Spec("hills", "imagen-4", "", 0, *size, extension)))
    assert (picture.format, picture.size, picture.mode) == (kind, size, "RGB")
    assert not picture.getexif()


def test_every_draw_gives_the_same_bytes() -> None:
    assert draw(KITE) == draw(replace(KITE))


@pytest.mark.parametrize(
    "other", [{"prompt": "a red kitf"}, {"model": "imagen-4-fast"}, {"seed": "1"}, {"index": 1}], ids=str
)
def test_requests_that_differ_give_other_pictures(other: dict[str, Any]) -> None:
    assert draw(KITE) != draw(replace(KITE, **other))


def test_studio_draws_once_and_forgets_the_oldest() -> None:
    studio = Studio(threads=2, keep=2)
    first, second, third = (Spec(text, "imagen-4", width=32, height=32) for text in ("a", "b", "c"))
    ordered = studio.order(first)
    assert studio.order(first) is ordered
    data = ordered.result(10)
    for other in (second, third):
        studio.order(other).result(10)
    again = studio.order(first)
    assert again is not ordered
    assert again.result(10) == data
    studio.close()


def test_studio_forgets_nothing_that_it_has_not_drawn_yet() -> None:
    studio = Studio(threads=1, keep=1)
    specs = [Spec(f"kite {number}", "imagen-4", width=512, height=512) for number in range(20)]
    ordered = [studio.order(spec) for spec in specs]
    assert [studio.order(spec) for spec in specs[1:]] == ordered[1:]
    assert studio.order(specs[0], now=True).result(20), "a download does not wait for the others"
    assert not ordered[-1].done()
    studio.close()
