from __future__ import annotations

import io
import random

import pytest
from PIL import Image

from receiver.sandbox.art import caption, themes
from receiver.sandbox.art.drawing import Spec, Studio, draw, size_of


def small(prompt: str, model: str = "imagen-4", seed: str = "", index: int = 0) -> Spec:
    return Spec(prompt, model, seed, index, 96, 96)


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@pytest.mark.parametrize(
    ("ratio", "side", "size"),
    [
        ("1:1", 1024, (1024, 1024)),
        ("3:4", 1024, (896, 1280)),
        ("4:3", 1024, (1280, 896)),
        ("9:16", 1024, (768, 1408)),
        ("16:9", 1024, (1408, 768)),
        ("16:9", 2048, (2816, 1536)),
        ("1:1", 64, (64, 64)),
        ("1024x512", 1024, (1472, 704)),
        ("2:1", 1024, (1472, 704)),
        ("100:1", 1024, (2048, 512)),
        ("0:1", 1024, (1024, 1024)),
        ("match_input_image", 1024, (1024, 1024)),
    ],
)
def test_size_follows_the_aspect_ratio(ratio: str, side: int, size: tuple[int, int]) -> None:
    assert size_of(ratio, side) == size


@pytest.mark.parametrize(("extension", "kind"), [("png", "PNG"), ("jpg", "JPEG")])
def test_a_picture_is_a_real_file_of_the_size_that_was_asked_for(extension: str, kind: str) -> None:
    picture = opened(draw(Spec("a red kite", "imagen-4", width=140, height=76, extension=extension)))
    assert (picture.format, picture.size, picture.mode) == (kind, (140, 76), "RGB")


def test_large_pictures_are_enlarged_to_their_full_size() -> None:
    spec = Spec("hills", "imagen-4", width=1536, height=1100, extension="jpg")
    assert opened(draw(spec)).size == (1536, 1100)


def test_every_draw_gives_the_same_bytes() -> None:
    spec = small("a red kite over a grey harbour", "imagen-4", seed="7", index=1)
    assert draw(spec) == draw(spec)


@pytest.mark.parametrize(
    "other",
    [
        small("a red kitf", "imagen-4"),
        small("a red kite", "imagen-4-fast"),
        small("a red kite", "imagen-4", seed="1"),
        small("a red kite", "imagen-4", index=1),
    ],
    ids=["prompt", "model", "seed", "index"],
)
def test_what_differs_in_the_request_differs_in_the_picture(other: Spec) -> None:
    assert draw(small("a red kite", "imagen-4")) != draw(other)


@pytest.mark.parametrize("scene", sorted(themes.SCENES))
@pytest.mark.parametrize("size", [(96, 96), (140, 76), (76, 140)])
def test_every_scene_fills_every_shape_with_colour(scene: str, size: tuple[int, int]) -> None:
    word = next(iter(themes.words_for(scene)))
    picture = opened(draw(Spec(word, "imagen-4", width=size[0], height=size[1])))
    colours = picture.getcolors(size[0] * size[1])
    assert colours is not None
    assert len(colours) > 300
    assert max(count for count, _ in colours) < size[0] * size[1] / 4


def test_plain_pictures_are_real_and_differ_too() -> None:
    one, other = (draw(Spec("a", "m", index=n, width=64, height=48, plain=True)) for n in range(2))
    assert opened(one).size == (64, 48)
    assert one != other


@pytest.mark.parametrize(
    ("prompt", "scene"),
    [
        ("A photorealistic bowl of ramen with steam rising", "table"),
        ("a lighthouse by the OCEAN, at sunset", "ocean"),
        ("snowy street in Tokyo", "snow"),
        ("夜の海", "ocean"),
    ],
)
def test_words_of_the_prompt_choose_the_scene(prompt: str, scene: str) -> None:
    assert themes.choose(prompt, random.Random(1))[0] == scene


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a red kite", "a red kite"),
        ("  two\nlines ", "two lines"),
        ("élan naïve", "elan naive"),
        ("🦊 fox in the snow", "fox in the snow"),
        ("夜の海", ""),
        ("мир и любовь", ""),
    ],
)
def test_captions_show_only_what_the_font_can_draw(prompt: str, shown: str) -> None:
    assert caption.drawable(prompt) == shown


@pytest.mark.parametrize("prompt", ["word " * 200, "w" * 900, "", "\N{FOX FACE}"])
def test_any_prompt_can_be_captioned(prompt: str) -> None:
    assert opened(draw(small(prompt, "imagen-4"))).size == (96, 96)


def test_the_studio_draws_once_and_forgets_the_oldest() -> None:
    studio = Studio(threads=2, keep=2)
    first, second, third = (Spec(text, "imagen-4", width=32, height=32) for text in ("a", "b", "c"))
    ordered = studio.order(first)
    assert studio.order(first) is ordered
    data = ordered.result(10)
    studio.order(second)
    studio.order(third)
    again = studio.order(first)
    assert again is not ordered
    assert again.result(10) == data
    studio.close()
