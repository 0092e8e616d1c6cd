"""Scenes without a horizon: light, circles, ribbons, petals, planets, and things on a table."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from receiver.sandbox.art import shapes
from receiver.sandbox.art.canvas import Canvas, Point
from receiver.sandbox.art.colours import RGB, Palette, lighter, mix
from receiver.sandbox.art.elements import stars, sun
from receiver.sandbox.art.landscapes import layers


def mesh(canvas: Canvas, palette: Palette) -> None:
    """Cover the canvas with the palette's colours melting into each other."""
    rng = canvas.rng
    pool = [*palette.sky, *palette.sky[1:], palette.accents[0], lighter(palette.accents[2], 0.25)]
    if palette.dark:
        pool += [palette.near, palette.near]
    canvas.field([rng.choice(pool) for _ in range(16)], 4, 4)


def blobs(canvas: Canvas, palette: Palette) -> None:
    """Soft lights, and discs of tinted glass over them."""
    rng = canvas.rng
    mesh(canvas, palette)
    for _ in range(4):
        at = (rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9))
        canvas.glow(at, rng.uniform(0.35, 0.6), rng.choice(palette.accents), 0.65, 1.5)
    for size in (0.3, 0.2, 0.13, 0.08, 0.05):
        at = (rng.uniform(0.18, 0.82), rng.uniform(0.18, 0.74))
        colour = rng.choice(palette.accents)
        radius = size * rng.uniform(0.85, 1.15)
        canvas.fill(canvas.disc(at, radius), (lighter(colour, 0.5), colour), 0.62, shadow=0.3)
        canvas.fill(canvas.ring(at, radius, radius - 0.0025), (255, 255, 255), 0.35)


def arcs(canvas: Canvas, palette: Palette) -> None:
    """Bands of colour around a point, each laid on the one below like cut paper."""
    rng = canvas.rng
    canvas.wash((lighter(palette.sky[-1], 0.2), palette.sky[-2]))
    at = rng.choice(((0.5, 1.02), (0.0, 1.0), (1.0, 1.0), (0.5, 0.98)))
    reach = 1.02 if at[0] == 0.5 else 1.35
    bands = [palette.near, *palette.accents, palette.sun]
    start = rng.randrange(len(bands))
    count = 8
    for number in range(count):
        colour = bands[(start + number) % len(bands)]
        radius = reach * (1 - number / count) ** 1.15 * 0.9
        canvas.fill(canvas.disc(at, radius), (lighter(colour, 0.1), colour), shadow=0.5)
    free = (0.5 if at[0] != 0.5 else rng.choice((0.16, 0.84)), 0.15)
    if at[0] != 0.5:
        free = (1 - at[0] + (0.16 if at[0] else -0.16), 0.16)
    canvas.fill(canvas.disc(free, 0.06), (palette.sun, palette.accents[0]), shadow=0.3)


def ribbons(canvas: Canvas, palette: Palette) -> None:
    """Bands of silk across the canvas."""
    rng = canvas.rng
    mesh(canvas, palette)
    base = rng.uniform(0.3, 0.42)
    upper = shapes.smooth(rng, base, 0.2, 0.75)
    for number in range(9):
        sway = shapes.smooth(rng, 0.0, 0.055, 1.0)
        gap = 0.052 + 0.012 * number
        lower = [(x, y + gap + rise[1]) for (x, y), rise in zip(upper, sway, strict=True)]
        colour = palette.accents[number % len(palette.accents)]
        fill = (lighter(colour, 0.42), mix(colour, palette.sky[0], 0.25), lighter(colour, 0.15))
        canvas.fill(canvas.polygon(shapes.between(upper, lower)), fill, 0.8, shadow=0.3)
        edge = [(x, y + 0.0022) for x, y in upper]
        canvas.fill(canvas.polygon(shapes.between(upper, edge)), (255, 255, 255), 0.45)
        upper = [(x, y - 0.3 * gap) for x, y in lower]


def bloom(canvas: Canvas, palette: Palette) -> None:
    """A flower, ring by ring of petals."""
    rng = canvas.rng
    canvas.field([rng.choice(palette.sky) for _ in range(9)], 3, 3)
    at = (rng.uniform(0.44, 0.56), rng.uniform(0.42, 0.5))
    canvas.glow(at, 0.7, lighter(palette.sun, 0.3), 0.7)
    petals = rng.choice((8, 10, 12))
    for ring in range(4):
        colour = mix(palette.accents[0], palette.accents[1], ring / 4)
        length = 0.43 - 0.085 * ring
        angles = [(number + ring / 2) / petals * math.tau for number in range(petals)]
        for half in range(2):
            outer = _petals(canvas, at, length, angles[half::2], 1.75 / petals)
            canvas.fill(outer, lighter(colour, 0.3 + 0.08 * half), 0.9, shadow=0.2)
        canvas.fill(_petals(canvas, at, length * 0.8, angles, 1.4 / petals), lighter(colour, 0.55), 0.3)
        canvas.glow(at, length * 0.75, mix(palette.accents[0], palette.near, 0.5), 0.4, 1.3)
    canvas.fill(canvas.disc(at, 0.065), (palette.sun, palette.accents[1]), shadow=0.4)
    seeds = [(n * 2.399963, 0.0085 * math.sqrt(n)) for n in range(46)]
    dots = [(at[0] + _x(canvas, r * math.cos(a)), at[1] + _y(canvas, r * math.sin(a))) for a, r in seeds]
    canvas.fill(_dots(canvas, dots, 0.003), mix(palette.accents[0], palette.near, 0.5), 0.7)


def planets(canvas: Canvas, palette: Palette) -> None:
    """A planet with a ring, its moons, and many stars."""
    rng = canvas.rng
    canvas.wash((palette.near, palette.sky[0], mix(palette.sky[1], palette.near, 0.3)))
    for _ in range(3):
        canvas.glow(
            (rng.random(), rng.random()), rng.uniform(0.4, 0.8), rng.choice(palette.accents), 0.26, 1.7
        )
    stars(canvas, 420, 1.0)
    at, radius = (rng.uniform(0.38, 0.62), rng.uniform(0.4, 0.52)), rng.uniform(0.2, 0.26)
    first, second = rng.sample(palette.accents, 2)
    canvas.glow(at, radius * 2.1, first, 0.5)
    tilt, hoops = rng.uniform(-0.35, 0.35), ((2.05, 1.5, 0.55), (1.44, 1.3, 0.32))
    hoop_masks = [_hoop(canvas, at, radius * a, radius * b, tilt) for a, b, _ in hoops]
    for mask, (_, _, alpha) in zip(hoop_masks, hoops, strict=True):
        canvas.fill(mask, lighter(second, 0.45), alpha)
    globe(canvas, at, radius, (lighter(first, 0.45), first, mix(first, second, 0.5)), palette.near)
    slope = math.tan(tilt) * canvas.aspect
    edge = [(x, at[1] + (x - at[0]) * slope) for x in (-0.1, 1.1)]
    front = canvas.polygon([*edge, (1.1, 2.0), (-0.1, 2.0)])
    for mask, (_, _, alpha) in zip(hoop_masks, hoops, strict=True):
        canvas.fill(Image.composite(mask, Image.new("L", mask.size), front), lighter(second, 0.45), alpha)
    for _ in range(2):
        moon = (at[0] + rng.choice((-1, 1)) * rng.uniform(0.3, 0.42), at[1] + rng.uniform(-0.34, 0.3))
        globe(canvas, moon, rng.uniform(0.02, 0.045), (lighter(second, 0.6), second), palette.near)


def globe(canvas: Canvas, at: Point, radius: float, bands: tuple[RGB, ...], dark: RGB) -> None:
    """A ball, lit from the upper left."""
    mask = canvas.disc(at, radius)
    canvas.fill(mask, bands)
    shift = 0.55 * radius
    lit = canvas.blurred(
        canvas.disc((at[0] - _x(canvas, shift), at[1] - _y(canvas, shift)), radius * 1.12), 0.05
    )
    shade = Image.composite(
        lit.point([round((255 - v) * 0.82) for v in range(256)]), Image.new("L", mask.size), mask
    )
    canvas.fill(shade, dark)


def table(canvas: Canvas, palette: Palette) -> None:
    """A bowl and its company on a table, with steam that rises."""
    rng = canvas.rng
    wall = lighter(palette.sky[-1], 0.25)
    canvas.wash((mix(wall, palette.sky[-2], 0.5), wall))
    side = rng.choice((0.3, 0.7))
    canvas.fill(canvas.disc((side, 0.36), 0.25), (palette.sun, palette.accents[1]), 0.85)
    edge = 0.76
    top = mix(palette.accents[0], palette.near, 0.35)
    canvas.fill(
        canvas.polygon([(0, edge), (1, edge), (1, 1.02), (0, 1.02)]), (lighter(top, 0.12), top), shadow=0.25
    )
    middle = 0.5 + (0.5 - side) * 0.25
    _steam(canvas, middle)
    _bowl(canvas, palette, (middle, 0.6), 0.26)
    for number, place in enumerate((side, side + (side - 0.5) * 0.7)):
        size = 0.075 - 0.022 * number
        at = (place, edge + 0.045 - _y(canvas, size))
        canvas.fill(canvas.blurred(canvas.disc((place, edge + 0.04), size * 0.8), 0.02), palette.near, 0.4)
        globe(
            canvas,
            at,
            size,
            (lighter(palette.accents[3 - number], 0.3), palette.accents[3 - number]),
            palette.near,
        )


def night(canvas: Canvas, palette: Palette) -> None:
    """Curtains of northern light over dark hills."""
    rng = canvas.rng
    canvas.wash((*palette.sky[:3], mix(palette.sky[2], palette.sky[3], 0.6)))
    stars(canvas, 300, 0.7)
    for number in range(3):
        crest = shapes.smooth(rng, 0.36 + 0.08 * number, 0.12, 0.9)
        colour = palette.accents[number % len(palette.accents)]
        for step in range(4):
            lift = 0.07 + 0.075 * step
            veil = canvas.polygon(shapes.between([(x, y - lift) for x, y in crest], crest))
            canvas.fill(canvas.blurred(veil, 0.012 + 0.012 * step), (palette.sky[1], colour), 0.17)
    sun(canvas, palette, (rng.uniform(0.15, 0.85), rng.uniform(0.12, 0.2)), 0.035)
    ridges = [shapes.jagged(rng, 0.8 + 0.07 * n, 0.15 - 0.03 * n, 3 + n) for n in range(2)]
    layers(canvas, palette, [*ridges, shapes.smooth(rng, 0.95, 0.03, 1.4)], shadow=0.2)


def _steam(canvas: Canvas, middle: float) -> None:
    for number in range(3):
        x0, phase = middle + (number - 1) * _x(canvas, 0.085), canvas.rng.uniform(0, math.tau)
        curl = [
            (x0 + _x(canvas, 0.03 * math.sin(t / 9 + phase) * (0.4 + t / 40)), 0.56 - 0.011 * t)
            for t in range(34)
        ]
        canvas.fill(canvas.blurred(canvas.line(curl, 0.026), 0.014), (255, 255, 255), 0.55)


def _bowl(canvas: Canvas, palette: Palette, at: Point, radius: float) -> None:
    foot = at[1] + _y(canvas, radius * 0.86)
    canvas.fill(canvas.blurred(canvas.disc((at[0], foot), radius * 0.55), 0.03), palette.near, 0.35)
    body = shapes.circle(at, radius, canvas.aspect, 0.0, 0.5)
    colour = palette.accents[2]
    canvas.fill(
        canvas.polygon(body), (lighter(colour, 0.3), colour, mix(colour, palette.near, 0.4)), shadow=0.3
    )
    band = [
        *shapes.circle(at, radius, canvas.aspect, 0.055, 0.085),
        *shapes.circle(at, radius, canvas.aspect, 0.415, 0.445),
    ]
    canvas.fill(canvas.polygon(band), lighter(palette.sun, 0.2), 0.7)
    rim = [(x, at[1] + (y - at[1]) * 0.22) for x, y in shapes.circle(at, radius, canvas.aspect)]
    canvas.fill(canvas.polygon(rim), lighter(colour, 0.55))
    soup = [(at[0] + (x - at[0]) * 0.9, at[1] + (y - at[1]) * 0.84) for x, y in rim]
    canvas.fill(canvas.polygon(soup), (mix(palette.accents[1], palette.near, 0.2), palette.accents[1]))
    rng = canvas.rng
    for _ in range(7):
        x, y = (
            at[0] + _x(canvas, rng.uniform(-0.7, 0.7) * radius),
            at[1] + _y(canvas, rng.uniform(-0.1, 0.1) * radius),
        )
        canvas.fill(canvas.disc((x, y), radius * rng.uniform(0.045, 0.085)), rng.choice(palette.accents), 0.9)


def _petals(canvas: Canvas, at: Point, length: float, angles: list[float], width: float) -> Image.Image:
    side = []
    for step in range(25):
        along = step / 24
        side.append((length * along, length * width * math.sin(math.pi * along**0.8) ** 0.9))
    outline = [*side, *((x, -y) for x, y in reversed(side))]

    def draw(pen: ImageDraw.ImageDraw, w: float, h: float, short: float) -> None:
        for angle in angles:
            cos, sin = math.cos(angle) * short, math.sin(angle) * short
            pen.polygon(
                [(at[0] * w + x * cos - y * sin, at[1] * h + x * sin + y * cos) for x, y in outline], fill=255
            )

    return canvas.mask(draw)


def _hoop(canvas: Canvas, at: Point, outer: float, inner: float, tilt: float) -> Image.Image:
    def ellipse(radius: float) -> list[Point]:
        flat = [
            (radius * math.cos(t * math.tau / 90), 0.24 * radius * math.sin(t * math.tau / 90))
            for t in range(91)
        ]
        cos, sin = math.cos(tilt), math.sin(tilt)
        return [
            (at[0] + _x(canvas, x * cos - y * sin), at[1] + _y(canvas, x * sin + y * cos)) for x, y in flat
        ]

    return canvas.polygon(shapes.between(ellipse(outer), ellipse(inner)))


def _dots(canvas: Canvas, places: list[Point], radius: float) -> Image.Image:
    def draw(pen: ImageDraw.ImageDraw, w: float, h: float, short: float) -> None:
        r = radius * short
        for x, y in places:
            pen.ellipse((x * w - r, y * h - r, x * w + r, y * h + r), fill=255)

    return canvas.mask(draw)


def _x(canvas: Canvas, length: float) -> float:
    return length * canvas.short / canvas.width


def _y(canvas: Canvas, length: float) -> float:
    return length * canvas.short / canvas.height
