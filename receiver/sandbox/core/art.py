"""Paint the sandbox's pictures: palettes, a canvas, and five scenes that the words of a prompt choose from.

The unit of every place and length is the picture's shorter side, from the top left, so that circles are
round and a scene looks alike in every aspect ratio.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageChops, ImageDraw, ImageFilter

RGB = tuple[int, ...]
Point = tuple[float, float]
Outline = list[Point]

WHITE, SHADOW = (255, 255, 255), (10, 8, 30)
FINER = 2
"""Edges are drawn this much larger and then reduced, which smooths them."""


def mix(one: RGB, other: RGB, share: float) -> RGB:
    """Return the colour between one (share 0) and another (share 1)."""
    return tuple(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))


def lighter(colour: RGB, share: float) -> RGB:
    """Return the colour, mixed with white."""
    return mix(colour, WHITE, share)


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours that go together: the sky from top to horizon, the nearest ground, the light, accents."""

    sky: tuple[RGB, ...]
    near: RGB
    sun: RGB
    accents: tuple[RGB, ...]

    @classmethod
    def parse(cls, colours: str) -> Palette:
        """Parse four colours of the sky, near, sun, and four accents, in hex."""
        found = [tuple(bytes.fromhex(colour)) for colour in colours.split()]
        return cls(tuple(found[:4]), found[4], found[5], tuple(found[6:]))

    @property
    def dark(self) -> bool:
        """Whether it is night, or nearly."""
        return sum(self.sky[0]) < 240

    def varied(self, rng: random.Random) -> Palette:
        """Return a neighbour: the sky pulled towards one accent, and the accents in another order."""
        pull, share = rng.choice(self.accents), rng.uniform(0.0, 0.16)
        sky = tuple(mix(colour, pull, share) for colour in self.sky)
        return Palette(sky, self.near, self.sun, tuple(rng.sample(self.accents, 4)))


_PALETTES = {
    "sunset evening desert warm": "232a66 84397a e8615a ffbe6b 22123a ffe9b0 ff7b54 ffb26b b5417f 5c4db1",
    "sunrise dawn morning": "39407f 8a6bb1 f2a391 fcdcb0 221d44 fff3d6 f27d72 f7b267 7b5ea7 5aa9e6",
    "green clean studio forest": "7cc7c4 a8ded0 d9f2e1 fbf6dc 10404c fffbe8 2a9d8f 76c7b0 f4d58d ef8a62",
    "blue summer sky snow winter": "3f9bd0 7cc5e6 bfe6f2 fdf3d9 0a3a5c fffaf0 1f78b4 39b5c4 f6c667 f2865e",
    "night moon stars dusk 夜": "0a1236 1f3068 6070ac d8b4c0 070c26 fff4e0 e58ba5 8fa2e0 f4c095 5fb0c9",
    "autumn coffee wood fox": "b9c7c4 ecd9b4 f3b983 e5825a 3a1c24 fff2d1 d1603d ecae5c 8a3b3b 6b7f4f",
    "neon cyberpunk purple": "0a0726 2b1060 8a2396 ff6fa8 07051a ffe6f5 ff4f9a 39d5ff 8f5bff ffc04d",
    "pink rose blossom sale sunny": "e8899a f7b0a4 fcd7b4 fff3dc 5a2233 fffaf0 f26a4b ffb703 7fb069 2d93ad",
}
PALETTES = {words: Palette.parse(colours) for words, colours in _PALETTES.items()}
"""By the words of a prompt that call for them."""


class Canvas:
    """An RGB picture in the making. `rng` is the one source of chance for all that is painted on it."""

    def __init__(self, width: int, height: int, rng: random.Random) -> None:
        self.rng = rng
        self.short = min(width, height)
        self.wide, self.tall = width / self.short, height / self.short
        self.image = Image.new("RGB", (width, height))

    def wash(self, stops: tuple[RGB, ...]) -> None:
        """Cover everything with a gradient from top to bottom."""
        self.image.paste(_gradient(stops, self.image.size))

    def glow(self, at: Point, radius: float, colour: RGB, strength: float) -> None:
        """Shed light around a place, fading out to nothing at the radius."""
        across = max(2, round(radius * self.short * 2))
        fading = [round(255 * strength * (1 - min(v / 181, 1)) ** 2) for v in range(256)]
        mask = Image.radial_gradient("L").point(fading).resize((across, across), Image.Resampling.BILINEAR)
        corner = round(at[0] * self.short - across / 2), round(at[1] * self.short - across / 2)
        self.image.paste(colour, (*corner, corner[0] + across, corner[1] + across), mask)

    def paint(
        self, outlines: Iterable[Outline], *stops: RGB, alpha: float = 1, shadow: float = 0, soft: float = 0
    ) -> None:
        """Fill outlines with a colour, or with a gradient over their height; a shadow falls around them."""
        sheet = Image.new("L", (self.image.width * FINER, self.image.height * FINER))
        pen, scale = ImageDraw.Draw(sheet), self.short * FINER
        for outline in outlines:
            pen.polygon([(x * scale, y * scale) for x, y in outline], fill=255)
        mask = sheet.reduce(FINER)
        if shadow:
            self.image.paste(SHADOW, None, self._blurred(mask, 0.022).point(lambda v: v * shadow))
        if soft:
            mask = self._blurred(mask, soft)
        box = mask.getbbox()
        if box is not None:
            mask = mask.crop(box).point(lambda v: v * alpha)
            self.image.paste(_gradient(stops, mask.size), box, mask)

    def finish(self, size: tuple[int, int]) -> Image.Image:
        """Return the picture in its full size, with darker corners and a fine grain, as film has."""
        light = [255 - round(56 * max(0.0, (v / 255 - 0.45) / 0.55) ** 2) for v in range(256)]
        corners = Image.radial_gradient("L").point(light).resize(size, Image.Resampling.BILINEAR)
        noise = Image.frombytes("L", size, self.rng.randbytes(size[0] * size[1]))
        noise = noise.point([128 + round((v - 127.5) / 32) for v in range(256)])
        picture = self.image.resize(size, Image.Resampling.BICUBIC)
        picture = ImageChops.multiply(picture, Image.merge("RGB", [corners] * 3))
        return ImageChops.add(picture, Image.merge("RGB", [noise] * 3), 1, -128)

    def _blurred(self, mask: Image.Image, radius: float) -> Image.Image:
        # Worked out small: what is soft has no detail.
        small = mask.reduce(8).filter(ImageFilter.GaussianBlur(max(0.5, radius * self.short / 8)))
        return small.resize(mask.size, Image.Resampling.BILINEAR)


def _gradient(stops: tuple[RGB, ...], size: tuple[int, int]) -> Image.Image:
    if len(stops) == 1:
        return Image.new("RGB", size, stops[0])
    strip = Image.new("RGB", (1, len(stops)))
    strip.putdata(stops)
    return strip.resize(size, Image.Resampling.BILINEAR, (0, 0.5, 1, len(stops) - 0.5))


def disc(at: Point, radius: float, squash: float = 1.0, start: float = 0.0, end: float = 1.0) -> Outline:
    """Return the outline of a disc, or of a part of it between two turns; squashed, of an ellipse."""
    turns = [math.tau * (start + (end - start) * step / 72) for step in range(73)]
    return [(at[0] + radius * math.cos(t), at[1] + radius * squash * math.sin(t)) for t in turns]


def box(left: float, top: float, right: float, bottom: float) -> Outline:
    """Return the outline of a box."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def wave(canvas: Canvas, base: float, height: float, swings: float) -> Outline:
    """Return a rolling line from left to right: three sines of falling size."""
    rng = canvas.rng
    sines = [
        (swings * rng.uniform(0.7, 1.3) * 1.9**n, rng.uniform(0, math.tau), 0.57 * 0.5**n) for n in range(3)
    ]
    steps = [canvas.wide * step / 120 for step in range(121)]
    return [(x, base - height * sum(s * math.sin(x * v * math.tau + p) for v, p, s in sines)) for x in steps]


def ridge(canvas: Canvas, base: float, height: float, peaks: int) -> Outline:
    """Return a mountain ridge: the middle of every span is moved, less with each halving."""
    rng, rough = canvas.rng, 0.16
    rises = [rng.uniform(0.3, 1.0) if n % 2 else rng.uniform(0.0, 0.35) for n in range(peaks * 2 + 1)]
    while len(rises) < 150:
        middles = [(left + right) / 2 + rng.uniform(-rough, rough) for left, right in pairwise(rises)]
        rises = [rise for pair in zip(rises, middles, strict=False) for rise in pair] + [rises[-1]]
        rough *= 0.52
    return [(canvas.wide * n / (len(rises) - 1), base - height * rise) for n, rise in enumerate(rises)]


def ground(canvas: Canvas, line: Outline) -> Outline:
    """Return the outline of all that lies below a line."""
    return [*line, (canvas.wide, canvas.tall + 0.1), (0.0, canvas.tall + 0.1)]


def sky(canvas: Canvas, palette: Palette, sun: Point, radius: float) -> None:
    """Paint a sky with its sun; at night with its moon and stars."""
    rng = canvas.rng
    canvas.wash(palette.sky)
    if palette.dark:
        places = [(rng.uniform(0, canvas.wide), canvas.tall * 0.5 * rng.random()) for _ in range(140)]
        canvas.paint([box(x, y, x + 0.002, y + 0.002) for x, y in places], (255, 250, 235), alpha=0.7)
    canvas.glow(sun, radius * 6, palette.sun, 0.6)
    canvas.paint([disc(sun, radius)], palette.sun, mix(palette.sun, palette.accents[0], 0.25))


def mountains(canvas: Canvas, palette: Palette) -> None:
    """Paint ridges that fade into the haze, and dark hills with firs before them."""
    rng, tall = canvas.rng, canvas.tall
    sun = canvas.wide * rng.uniform(0.2, 0.8), tall * rng.uniform(0.2, 0.36)
    sky(canvas, palette, sun, rng.uniform(0.06, 0.1))
    haze = palette.sky[-1]
    for number in range(4):
        depth = (number + 1) / 5
        body = mix(mix(haze, palette.sky[1], 0.55), palette.near, depth)
        line = ridge(canvas, tall * (0.62 + 0.09 * number), 0.34 - 0.05 * number, 2 + number)
        canvas.paint([ground(canvas, line)], body, mix(body, haze, 0.5 * (1 - depth)), shadow=0.2 * depth)
    hill = wave(canvas, tall * 0.92, 0.035, 1.0 / canvas.wide)
    firs = [fir(*rng.choice(hill), rng.uniform(0.05, 0.12)) for _ in range(round(26 * canvas.wide))]
    canvas.paint([*firs, ground(canvas, hill)], mix(palette.near, palette.sky[1], 0.12), palette.near)


def fir(x: float, foot: float, height: float) -> Outline:
    """Return the outline of a fir."""
    tiers = ((0.0, 1.0), (0.1, 0.6), (0.04, 0.64), (0.16, 0.25), (0.07, 0.3), (0.2, -0.1))
    points = [(height * wide, foot - height * high) for wide, high in tiers]
    return [*((x + wide, y) for wide, y in points), *((x - wide, y) for wide, y in points[::-1])]


def sea(canvas: Canvas, palette: Palette) -> None:
    """Paint the sea under a low sun: its path of light, waves, and a boat."""
    rng, wide, tall = canvas.rng, canvas.wide, canvas.tall
    horizon = tall * rng.uniform(0.46, 0.56)
    depth = tall - horizon
    sun = wide * rng.uniform(0.25, 0.75), horizon - rng.uniform(-0.02, 0.2)
    sky(canvas, palette, sun, rng.uniform(0.08, 0.12))
    far, deep = mix(palette.sky[-1], palette.sky[1], 0.6), mix(palette.near, palette.sky[1], 0.3)
    canvas.paint([ground(canvas, ridge(canvas, horizon, 0.09, 3))], mix(far, palette.near, 0.35), alpha=0.7)
    canvas.paint([box(0, horizon, wide, tall)], far, mix(far, deep, 0.6), deep)
    glints = []
    for share in (number / 40 for number in range(40)):
        at = sun[0] + rng.uniform(-1, 1) * (0.015 + 0.07 * share), horizon + 0.005 + depth * 0.7 * share
        glints.append(disc(at, (0.025 + 0.11 * share) * rng.uniform(0.3, 1), 0.05))
    canvas.paint(glints, palette.sun, alpha=0.7)
    x, y, size = wide * (0.25 if sun[0] > wide / 2 else 0.75), horizon + 0.06, rng.uniform(0.07, 0.11)
    for reach, high, colour in ((-0.5, 1.1, lighter(palette.sun, 0.3)), (0.4, 0.9, palette.accents[0])):
        mast = x + 0.08 * size * reach
        canvas.paint([[(mast, y), (mast, y - size * high), (mast + reach * size, y - 0.06 * size)]], colour)
    canvas.paint([disc((x, y), size * 0.6, 0.4, 0, 0.5)], palette.near)
    for number in range(4):
        line = wave(canvas, horizon + depth * (0.3 + 0.2 * number), 0.012 + 0.006 * number, 1.6)
        tone = mix(far, deep, 0.4 + 0.2 * number)
        canvas.paint([ground(canvas, line)], lighter(tone, 0.14), tone, alpha=0.7, shadow=0.15)


def city(canvas: Canvas, palette: Palette) -> None:
    """Paint blocks against the sky, the nearest with lit windows."""
    rng, wide, tall, haze = canvas.rng, canvas.wide, canvas.tall, palette.sky[-1]
    sun = wide * rng.uniform(0.2, 0.8), tall * rng.uniform(0.25, 0.45)
    sky(canvas, palette, sun, rng.uniform(0.09, 0.15))
    for number in range(4):
        depth, blocks, windows, left = (number + 1) / 4, [], [], -0.04
        while left < wide:
            right = left + (0.05 + 0.02 * number) * rng.uniform(0.7, 1.6)
            top = tall * (0.5 + 0.1 * number) + 0.24 * (0.55 - rng.random() ** 1.6)
            blocks.append(box(left, top, right, tall))
            across, down = range(1, int((right - left) / 0.014)), range(1, round((tall - top) / 0.024))
            places = [(left + 0.014 * n, top + 0.024 * m) for n in across for m in down]
            windows += [box(x, y, x + 0.006, y + 0.01) for x, y in places if rng.random() < 0.25]
            left = right
        tone = mix(mix(haze, palette.sky[1], 0.6), palette.near, depth)
        foot = mix(tone, haze, 0.4 * (1 - depth))
        canvas.paint(blocks, lighter(tone, 0.05), foot, shadow=0.25 * depth)
        if number >= 2:
            canvas.paint(windows, palette.sun, alpha=0.35 * (number - 1))


def table(canvas: Canvas, palette: Palette) -> None:
    """Paint a bowl with steam, and fruit beside it on a table."""
    rng, wide, tall = canvas.rng, canvas.wide, canvas.tall
    bowl, fruit, soup, top = palette.accents
    near, wall, edge = palette.near, lighter(palette.sky[-1], 0.2), tall * 0.77
    canvas.wash((mix(wall, palette.sky[-2], 0.8), wall))
    side, radius = rng.choice((-1, 1)), rng.uniform(0.24, 0.29)
    x, y = wide / 2 - side * 0.08, edge - 0.14
    moon = disc((x + side * 0.24, y - 0.24), 0.26)
    canvas.paint([moon], palette.sun, mix(palette.sun, fruit, 0.5), alpha=0.9)
    canvas.paint([box(0, edge, wide, tall)], mix(top, near, 0.3), mix(top, near, 0.5), shadow=0.25)
    phase = rng.uniform(0, math.tau)
    for number in (-1, 0, 1):
        sway = [0.02 * math.sin(step / 6 + phase + number) * (0.4 + step / 40) for step in range(34)]
        curl = [(x + number * 0.09 + shift, y - 0.012 * step) for step, shift in enumerate(sway)]
        canvas.paint([[*curl, *((x + 0.028, y) for x, y in curl[::-1])]], WHITE, alpha=0.6, soft=0.012)
    canvas.paint([disc((x, y + radius * 0.92), radius * 0.6, 0.2)], near, alpha=0.5, soft=0.02)
    body = lighter(bowl, 0.25), bowl, mix(bowl, near, 0.45)
    canvas.paint([disc((x, y), radius, 1, 0, 0.5)], *body, shadow=0.25)
    canvas.paint([disc((x, y), radius, 0.22)], lighter(bowl, 0.55))
    canvas.paint([disc((x, y), radius * 0.9, 0.19)], mix(soup, near, 0.2), lighter(soup, 0.2))
    for _ in range(9):
        at = x + radius * rng.uniform(-0.65, 0.65), y + radius * rng.uniform(-0.09, 0.09)
        colour = lighter(rng.choice((bowl, fruit, top)), 0.15)
        canvas.paint([disc(at, radius * rng.uniform(0.05, 0.1), 0.7)], colour)
    for number in range(rng.randint(1, 2)):
        size = 0.085 - 0.02 * number
        at = x + side * (0.3 + 0.13 * number), edge + 0.05 - size
        canvas.paint([disc((at[0], at[1] + size), size, 0.3)], near, alpha=0.5, soft=0.012)
        canvas.paint([disc(at, size)], lighter(fruit, 0.35), fruit, mix(fruit, near, 0.5))
        canvas.glow((at[0] - size * 0.35, at[1] - size * 0.4), size * 0.6, WHITE, 0.5)


def arcs(canvas: Canvas, palette: Palette) -> None:
    """Paint bands of colour around a point, each laid on the one below like cut paper."""
    rng, wide, tall = canvas.rng, canvas.wide, canvas.tall
    canvas.wash((lighter(palette.sky[-1], 0.2), palette.sky[-2]))
    at = wide * rng.choice((0.0, 0.5, 1.0)), tall * rng.choice((0.75, 1.0))
    reach = math.hypot(max(at[0], wide - at[0]), at[1]) * rng.uniform(0.8, 0.9)
    bands, count = [palette.near, *palette.accents, palette.sun], rng.randint(6, 9)
    start = rng.randrange(len(bands))
    for number in range(count):
        colour = bands[(start + number) % len(bands)]
        canvas.paint(
            [disc(at, reach * (1 - number / count) ** 1.1)], lighter(colour, 0.12), colour, shadow=0.5
        )
    free = wide * rng.uniform(0.12, 0.88), tall * rng.uniform(0.1, 0.3)
    canvas.paint([disc(free, rng.uniform(0.05, 0.09))], palette.sun, palette.accents[0], shadow=0.4)


Scene = Callable[[Canvas, Palette], None]

SCENES: Mapping[str, Scene] = {
    "city skyline street building urban tokyo paris london york office cyberpunk rooftop 街 城市": city,
    "bowl ramen soup food coffee tea cup kitchen bread cake fruit still dinner noodles 拉面 茶": table,
    "sea ocean beach wave waves harbour harbor coast coastal lake river boat ship lighthouse bay 海": sea,
    "mountain mountains alps hill hills desert forest snow fox field valley castle dragon 山": mountains,
    "abstract poster pattern graphic icon logo silk music sneaker sale geometric minimal": arcs,
}
"""By the words of a prompt that call for them."""


def choose(prompt: str, rng: random.Random) -> tuple[Scene, Palette]:
    """Return the scene and the palette that the words of a prompt call for, else any."""
    scene = _match(prompt, SCENES) or rng.choice(list(SCENES))
    palette = _match(prompt, PALETTES) or rng.choice(list(PALETTES))
    return SCENES[scene], PALETTES[palette].varied(rng)


def _match(prompt: str, cues: Iterable[str]) -> str | None:
    said = set(re.findall(r"\w+", prompt.lower()))
    # Scripts without spaces between words are searched as text.
    fits = (c for c in cues if any(w in said or (not w.isascii() and w in prompt) for w in c.split()))
    return next(fits, None)
