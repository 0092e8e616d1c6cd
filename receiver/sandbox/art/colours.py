"""Colours, and the palettes that the sandbox's pictures are painted in."""

from __future__ import annotations

import random
from dataclasses import dataclass

RGB = tuple[int, int, int]


def rgb(text: str) -> RGB:
    """Read `#rrggbb`."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _lab(colour: RGB) -> tuple[float, float, float]:
    # Oklab, so that mixes keep their brightness: https://bottosson.github.io/posts/oklab/
    linear = [
        (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4) for v in (c / 255 for c in colour)
    ]
    r, g, b = linear
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    medium = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def _from_lab(light: float, a: float, b: float) -> RGB:
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    return _channel(red), _channel(green), _channel(blue)


def _channel(linear: float) -> int:
    linear = min(max(linear, 0.0), 1.0)
    value = linear * 12.92 if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return round(value * 255)


def mix(one: RGB, other: RGB, share: float) -> RGB:
    """Go from one colour (share 0) to another (share 1), evenly to the eye."""
    a, b = _lab(one), _lab(other)
    return _from_lab(*(x + (y - x) * share for x, y in zip(a, b, strict=True)))


def lighter(colour: RGB, by: float) -> RGB:
    """The same hue, lighter by a share of the way to white; darker if negative."""
    return mix(colour, (255, 255, 255) if by > 0 else (6, 8, 20), abs(by))


def ramp(stops: tuple[RGB, ...], steps: int) -> list[RGB]:
    """Spread the stops evenly over a number of steps."""
    spans = len(stops) - 1
    colours = []
    for step in range(steps):
        place = step / max(steps - 1, 1) * spans
        first = min(int(place), spans - 1)
        colours.append(mix(stops[first], stops[first + 1], place - first))
    return colours


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours that go together: the sky from top to horizon, the nearest ground, the light, accents."""

    sky: tuple[RGB, ...]
    near: RGB
    sun: RGB
    accents: tuple[RGB, ...]

    @property
    def haze(self) -> RGB:
        """What far things fade into."""
        return self.sky[-1]

    @property
    def dark(self) -> bool:
        """Whether it is night, or nearly."""
        return _lab(self.sky[0])[0] < 0.42

    def with_accent(self, colour: RGB) -> Palette:
        """The same with one colour put first, because the prompt named it."""
        return Palette(self.sky, self.near, mix(self.sun, colour, 0.55), (colour, *self.accents))

    def varied(self, rng: random.Random) -> Palette:
        """A neighbour of this palette: every hue pulled a little towards one of its own accents."""
        pull, share = rng.choice(self.accents), rng.uniform(0.0, 0.12)
        sky = tuple(mix(colour, pull, share) for colour in self.sky)
        return Palette(sky, mix(self.near, pull, share / 2), self.sun, self.accents)


def _palette(sky: str, near: str, sun: str, accents: str) -> Palette:
    return Palette(
        tuple(rgb(text) for text in sky.split()),
        rgb(near),
        rgb(sun),
        tuple(rgb(text) for text in accents.split()),
    )


PALETTES = {
    "dawn": _palette(
        "#39407f #8a6bb1 #f2a391 #fcdcb0", "#221d44", "#fff3d6", "#f27d72 #f7b267 #7b5ea7 #5aa9e6"
    ),
    "sunset": _palette(
        "#232a66 #84397a #e8615a #ffbe6b", "#22123a", "#ffe9b0", "#ff7b54 #ffb26b #b5417f #5c4db1"
    ),
    "golden": _palette(
        "#8fb8c9 #e9d3a9 #f7b97c #f08a5d", "#3b2438", "#fff4d2", "#e76f51 #f4a261 #e9c46a #2a9d8f"
    ),
    "mint": _palette(
        "#7cc7c4 #a8ded0 #d9f2e1 #fbf6dc", "#10404c", "#fffbe8", "#2a9d8f #76c7b0 #f4d58d #ef8a62"
    ),
    "ocean": _palette(
        "#3f9bd0 #7cc5e6 #bfe6f2 #fdf3d9", "#0a3a5c", "#fffaf0", "#1f78b4 #39b5c4 #f6c667 #f2865e"
    ),
    "dusk": _palette(
        "#121d45 #2d447f #7784bd #ecc0c4", "#0b1230", "#fff0dc", "#e58ba5 #8fa2e0 #f4c095 #5fb0c9"
    ),
    "night": _palette(
        "#060b26 #0f1f50 #27417f #6a79b8", "#050918", "#fdf6e0", "#7aa2ff #b79cff #f2d492 #4bc6d6"
    ),
    "aurora": _palette(
        "#04101f #0a2440 #0f4a55 #3c8d7f", "#030c14", "#eafff4", "#4ff2b0 #37c6c9 #8a7bf0 #d66bd0"
    ),
    "forest": _palette(
        "#9cc3a8 #c2dab5 #e4edcd #faf3d3", "#0f2f2a", "#fffbe3", "#3f7d5c #7fae7a #d9b25f #cf7a4b"
    ),
    "autumn": _palette(
        "#b9c7c4 #ecd9b4 #f3b983 #e5825a", "#3a1c24", "#fff2d1", "#d1603d #ecae5c #8a3b3b #6b7f4f"
    ),
    "snow": _palette(
        "#7fa3d1 #b4cdea #dde9f6 #fdf3ee", "#233a5e", "#fffdf6", "#5b8fd0 #a6c8ec #f3b6b0 #7f86c9"
    ),
    "desert": _palette(
        "#6f9bb3 #e7cfb0 #f8bf8a #ee8f6b", "#4b2036", "#fff2d8", "#e2725b #f2b263 #a3485f #3f8f95"
    ),
    "lavender": _palette(
        "#8f80cf #bba8e3 #e2d3f3 #fdeaea", "#2b2257", "#fff7ef", "#8e6fd1 #d48bc4 #6fa8dc #f5c28b"
    ),
    "rose": _palette(
        "#d0829f #f0abb4 #f9d0c9 #fff0df", "#4a1b3b", "#fffaf2", "#e4577b #f49b8b #a4508b #f6c177"
    ),
    "city": _palette(
        "#1e2553 #58498a #cb6d8d #fbb884", "#15132f", "#ffe9c4", "#ff8f70 #f6c667 #6f86d6 #c25b8a"
    ),
    "neon": _palette(
        "#0a0726 #2b1060 #8a2396 #ff6fa8", "#07051a", "#ffe6f5", "#ff4f9a #39d5ff #8f5bff #ffc04d"
    ),
    "citrus": _palette(
        "#f59b57 #ffc46b #ffe19a #fff6d8", "#5a2233", "#fffdf0", "#f26a4b #ffb703 #7fb069 #2d93ad"
    ),
    "slate": _palette(
        "#75818f #a3acb6 #cfd3d4 #f3eee6", "#1f242c", "#fffaf0", "#5f7387 #c9a27e #8fa6b2 #b5655b"
    ),
}
"""By name; `themes.py` says which words call for which."""
