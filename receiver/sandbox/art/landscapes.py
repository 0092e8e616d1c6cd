"""Scenes with a horizon: hills, mountains, sea, forest, desert, city."""

from __future__ import annotations

import math
import random

from receiver.sandbox.art import shapes
from receiver.sandbox.art.canvas import Canvas, Point
from receiver.sandbox.art.colours import Palette, lighter, mix
from receiver.sandbox.art.elements import birds, boat, clouds, flakes, glitter, stars, sun, trees, windows


def layers(canvas: Canvas, palette: Palette, lines: list[list[Point]], *, shadow: float = 0.35) -> None:
    """Fill the ground under each line, from far and hazy to near and dark, with mist at its foot."""
    far = mix(palette.haze, palette.sky[-2], 0.55)
    for number, line in enumerate(lines):
        depth = (number + 1) / len(lines)
        body = mix(far, palette.near, depth**1.15)
        body = mix(body, palette.accents[number % len(palette.accents)], 0.16 * (1 - depth) + 0.04)
        foot = mix(body, palette.haze, 0.42 * (1 - depth))
        canvas.fill(
            canvas.polygon(shapes.down(line)), (lighter(body, 0.09), body, foot), shadow=shadow * depth
        )


def hills(canvas: Canvas, palette: Palette) -> None:
    """Rolling hills, one behind the other, and the sun over them."""
    rng = canvas.rng
    canvas.wash(palette.sky)
    sun(canvas, palette, (rng.uniform(0.25, 0.75), rng.uniform(0.26, 0.42)), rng.uniform(0.07, 0.11))
    if palette.dark:
        stars(canvas, 160, 0.4)
    else:
        clouds(canvas, palette, 3, 0.35)
    count = 6
    layers(
        canvas,
        palette,
        [shapes.smooth(rng, 0.53 + 0.085 * n, 0.06 + 0.008 * n, 1.7 - 0.18 * n) for n in range(count)],
    )


def mountains(canvas: Canvas, palette: Palette) -> None:
    """Ridges in the mist."""
    rng = canvas.rng
    canvas.wash(palette.sky)
    if palette.dark:
        stars(canvas, 220, 0.5)
    sun(canvas, palette, (rng.uniform(0.22, 0.78), rng.uniform(0.2, 0.34)), rng.uniform(0.05, 0.085))
    ridges = [shapes.jagged(rng, 0.6 + 0.09 * n, 0.3 - 0.045 * n, 2 + n) for n in range(4)]
    layers(canvas, palette, [*ridges, shapes.smooth(rng, 0.93, 0.035, 1.2)], shadow=0.25)


def snow(canvas: Canvas, palette: Palette) -> None:
    """White peaks over white slopes, with flakes in the air."""
    rng = canvas.rng
    canvas.wash(palette.sky)
    sun(canvas, palette, (rng.uniform(0.2, 0.8), 0.24), 0.06)
    for base, height, peaks, depth in ((0.62, 0.36, 3, 0.25), (0.72, 0.27, 4, 0.5)):
        ridge = shapes.jagged(rng, base, height, peaks)
        rock = mix(palette.sky[0], palette.near, depth)
        canvas.fill(
            canvas.polygon(shapes.down(ridge)),
            (lighter(rock, 0.25), mix(rock, palette.haze, 0.5)),
            shadow=0.2,
        )
        snowline = [(x, min(1.0, y + (base - y) * rng.uniform(0.3, 0.55))) for x, y in ridge]
        canvas.fill(
            canvas.polygon(shapes.between(ridge, snowline)),
            ((255, 255, 255), lighter(palette.haze, 0.4)),
            0.93,
        )
    for number in range(3):
        slope = shapes.smooth(rng, 0.74 + 0.09 * number, 0.035, 1.0)
        top = mix((255, 255, 255), palette.sky[1], 0.12 + 0.1 * number)
        canvas.fill(canvas.polygon(shapes.down(slope)), (top, mix(top, palette.sky[0], 0.4)), shadow=0.16)
        if number < 2:
            trees(
                canvas,
                slope,
                mix(palette.near, palette.sky[0], 0.45 - 0.3 * number),
                0.035 + 0.035 * number,
                26,
            )
    flakes(canvas)


def forest(canvas: Canvas, palette: Palette) -> None:
    """Rows of firs that go off into the mist."""
    rng = canvas.rng
    canvas.wash(palette.sky)
    sun(canvas, palette, (rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.32)), 0.07)
    far = mix(palette.haze, palette.sky[0], 0.45)
    for number in range(5):
        depth = (number + 1) / 5
        ground = shapes.smooth(rng, 0.5 + 0.125 * number, 0.035, 1.3)
        colour = mix(far, palette.near, depth**1.2)
        trees(canvas, ground, colour, 0.09 + 0.075 * number, 46 - 7 * number)
        mist = mix(colour, palette.haze, 0.5 * (1 - depth))
        canvas.fill(canvas.polygon(shapes.down(ground)), (colour, mist))


def ocean(canvas: Canvas, palette: Palette) -> None:
    """The sea with the sun over it, its path of light, and waves that come in."""
    rng = canvas.rng
    horizon = rng.uniform(0.44, 0.52)
    canvas.wash((*palette.sky, palette.haze, palette.haze))
    at = (rng.uniform(0.3, 0.7), horizon - rng.uniform(0.05, 0.16))
    clouds(canvas, palette, 4, horizon - 0.12)
    sun(canvas, palette, at, rng.uniform(0.075, 0.11))
    far = mix(palette.haze, palette.sky[0], 0.5)
    deep = mix(palette.near, palette.sky[0], 0.35)
    water = canvas.polygon([(0, horizon), (1, horizon), (1, 1.02), (0, 1.02)])
    canvas.fill(water, (far, mix(far, deep, 0.55), deep))
    glitter(canvas, palette, at[0], horizon)
    birds(
        canvas,
        mix(palette.near, palette.haze, 0.25),
        (at[0] - 0.22 if at[0] > 0.5 else at[0] + 0.2, at[1] - 0.1),
    )
    for number in range(5):
        depth = (number + 1) / 5
        line = shapes.smooth(
            rng, horizon + (1.02 - horizon) * (0.2 + 0.7 * depth**1.3), 0.008 + 0.02 * depth, 2.6 - depth
        )
        tone = mix(mix(far, palette.sky[0], 0.3), deep, depth)
        canvas.fill(canvas.polygon(shapes.down(line)), (lighter(tone, 0.12), tone), 0.72, shadow=0.12)
        foam = [(x, y + 0.002 + 0.004 * depth) for x, y in line]
        if number == 0:
            boat(canvas, palette, (0.26 if at[0] > 0.5 else 0.72, horizon + 0.045), 0.085)
        canvas.fill(
            canvas.polygon(shapes.between(line, foam)), lighter(palette.haze, 0.4), 0.12 + 0.22 * depth
        )


def desert(canvas: Canvas, palette: Palette) -> None:
    """Dunes, each with a lit side and a shaded one."""
    rng = canvas.rng
    canvas.wash(palette.sky)
    sun(canvas, palette, (rng.uniform(0.2, 0.8), rng.uniform(0.22, 0.34)), rng.uniform(0.08, 0.12))
    canvas.fill(
        canvas.polygon(shapes.down(shapes.jagged(rng, 0.6, 0.12, 3))),
        mix(palette.haze, palette.near, 0.3),
        0.8,
    )
    for number in range(4):
        depth = (number + 1) / 4
        crest = shapes.smooth(rng, 0.6 + 0.11 * number, 0.055 + 0.015 * number, 0.9 - 0.1 * number)
        lit = mix(mix(palette.accents[1], palette.haze, 0.55 * (1 - depth)), palette.near, 0.34 * depth)
        canvas.fill(
            canvas.polygon(shapes.down(crest)),
            (lighter(lit, 0.12), lit, mix(lit, palette.near, 0.35)),
            shadow=0.3,
        )
        lower = [
            (x, y + 0.02 + 0.16 * max(0.0, math.sin((x * 1.6 + number) * math.pi)) ** 2) for x, y in crest
        ]
        shade = mix(palette.accents[0], palette.near, 0.25 + 0.4 * depth)
        canvas.fill(canvas.polygon(shapes.between(crest, lower)), (shade, lit), 0.5)


def city(canvas: Canvas, palette: Palette) -> None:
    """Blocks against the sky, the nearest with lit windows."""
    rng = canvas.rng
    canvas.wash(palette.sky)
    if palette.dark:
        stars(canvas, 90, 0.3)
    sun(canvas, palette, (rng.uniform(0.25, 0.75), rng.uniform(0.3, 0.45)), rng.uniform(0.09, 0.15))
    far = mix(palette.haze, palette.sky[1], 0.6)
    for number in range(4):
        depth = (number + 1) / 4
        tone = mix(far, palette.near, depth)
        blocks = skyline(rng, 0.47 + 0.1 * number, 0.2, 0.05 + 0.016 * number, canvas.aspect)
        draw = [point for left, right, top in blocks for point in ((left, top), (right, top))]
        mask = canvas.polygon([(-0.05, 1.05), *draw, (1.05, 1.05)])
        canvas.fill(
            mask, (lighter(tone, 0.05), mix(tone, palette.haze, 0.45 * (1 - depth))), shadow=0.2 * depth
        )
        if number >= 2:
            windows(canvas, blocks, palette.sun, 0.35 + 0.3 * (number - 2))


def skyline(
    rng: random.Random, base: float, height: float, width: float, aspect: float
) -> list[tuple[float, float, float]]:
    """Blocks side by side: left, right and top of each."""
    blocks, left = [], -0.04
    while left < 1.04:
        right = left + width * rng.uniform(0.7, 1.6) / max(aspect, 0.7)
        blocks.append((left, right, base + height * (0.55 - rng.random() ** 1.6)))
        left = right
    return blocks
