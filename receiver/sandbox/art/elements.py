"""What stands in a landscape or hangs over it: sun, stars, clouds, birds, a boat, firs, lit windows."""

from __future__ import annotations

from PIL import ImageDraw

from receiver.sandbox.art import shapes
from receiver.sandbox.art.canvas import Canvas, Point
from receiver.sandbox.art.colours import RGB, Palette, lighter, mix

WARM = (255, 178, 112)


def sun(canvas: Canvas, palette: Palette, at: Point, radius: float) -> None:
    """A sun, or a moon at night, in its own light."""
    canvas.glow(at, radius * 7, palette.sun, 0.35, 1.6)
    canvas.glow(at, radius * 2.6, palette.sun, 0.5, 1.8)
    edge = mix(palette.sun, WARM, 0.1 if palette.dark else 0.45)
    canvas.fill(canvas.disc(at, radius), (palette.sun, edge))


def stars(canvas: Canvas, number: int, lowest: float) -> None:
    """Stars of different brightness, fewer towards the horizon."""
    rng = canvas.rng
    for strength, share in ((0.35, 0.6), (0.6, 0.3), (0.95, 0.1)):
        spots = [(rng.random(), lowest * rng.random() ** 1.4) for _ in range(round(number * share))]
        size = 0.0009 + 0.0011 * strength

        def draw(
            pen: ImageDraw.ImageDraw,
            w: float,
            h: float,
            short: float,
            spots: list[Point] = spots,
            size: float = size,
        ) -> None:
            for x, y in spots:
                r = max(1.0, size * short)
                pen.ellipse((x * w - r, y * h - r, x * w + r, y * h + r), fill=255)

        canvas.fill(canvas.mask(draw), (255, 250, 235), strength)


def clouds(canvas: Canvas, palette: Palette, number: int, lowest: float) -> None:
    """Long soft clouds, lit from below."""
    rng = canvas.rng
    for _ in range(number):
        x, y, size = rng.uniform(0.0, 1.0), rng.uniform(0.06, lowest), rng.uniform(0.05, 0.11)

        def draw(
            pen: ImageDraw.ImageDraw,
            w: float,
            h: float,
            short: float,
            place: tuple[float, float, float] = (x, y, size),
        ) -> None:
            cx, cy, s = place[0] * w, place[1] * h, place[2] * short
            for shift, lift, wide in (
                (-1.6, 0.1, 1.5),
                (-0.4, -0.12, 1.7),
                (0.9, 0.0, 1.6),
                (2.0, 0.16, 1.2),
            ):
                middle, high = cx + shift * s, cy + lift * s
                pen.ellipse((middle - wide * s, high - 0.2 * s, middle + wide * s, high + 0.2 * s), fill=255)

        soft = canvas.blurred(canvas.mask(draw), 0.014)
        canvas.fill(soft, (lighter(palette.haze, 0.55), palette.haze), rng.uniform(0.3, 0.6))


def birds(canvas: Canvas, colour: RGB, at: Point) -> None:
    """A few birds far off."""
    rng = canvas.rng
    flock = [(at[0] + rng.uniform(-0.09, 0.09), at[1] + rng.uniform(-0.05, 0.05)) for _ in range(5)]

    def draw(pen: ImageDraw.ImageDraw, w: float, h: float, short: float) -> None:
        for x, y in flock:
            cx, cy, wing = x * w, y * h, 0.012 * short
            stroke = max(1, round(0.0022 * short))
            pen.arc((cx - 2 * wing, cy - 0.5 * wing, cx, cy + wing), 200, 345, fill=255, width=stroke)
            pen.arc((cx, cy - 0.5 * wing, cx + 2 * wing, cy + wing), 195, 340, fill=255, width=stroke)

    canvas.fill(canvas.mask(draw), colour, 0.75)


def boat(canvas: Canvas, palette: Palette, at: Point, size: float) -> None:
    """A small boat under sail."""
    x, y = at
    wide, high = size * canvas.short / canvas.width, size * canvas.short / canvas.height
    hull = [
        (x - 0.55 * wide, y),
        (x + 0.6 * wide, y),
        (x + 0.4 * wide, y + 0.17 * high),
        (x - 0.4 * wide, y + 0.17 * high),
    ]
    main = [
        (x - 0.04 * wide, y - 0.06 * high),
        (x - 0.04 * wide, y - 1.15 * high),
        (x - 0.5 * wide, y - 0.06 * high),
    ]
    jib = [
        (x + 0.02 * wide, y - 0.06 * high),
        (x + 0.02 * wide, y - 0.95 * high),
        (x + 0.45 * wide, y - 0.06 * high),
    ]
    canvas.fill(canvas.polygon(main), (lighter(palette.sun, 0.3), mix(palette.sun, palette.sky[-2], 0.4)))
    canvas.fill(canvas.polygon(jib), (palette.accents[0], mix(palette.accents[0], palette.near, 0.25)))
    canvas.fill(canvas.polygon(hull), mix(palette.near, palette.accents[0], 0.15))


def trees(canvas: Canvas, ground: list[Point], colour: RGB, height: float, number: int) -> None:
    """Firs along a line."""
    rng = canvas.rng
    firs = [
        (x, height * rng.uniform(0.55, 1.25)) for x in sorted(rng.uniform(-0.02, 1.02) for _ in range(number))
    ]

    def draw(pen: ImageDraw.ImageDraw, w: float, h: float, short: float) -> None:
        for x, size in firs:
            foot, tall = (shapes.height_at(ground, x) + 0.012) * h, size * short
            for tier in range(4):
                top = foot - tall * (1 - 0.22 * tier)
                wide, bottom = tall * (0.11 + 0.055 * tier), top + tall * 0.36
                pen.polygon([(x * w, top), (x * w - wide, bottom), (x * w + wide, bottom)], fill=255)
            pen.rectangle(
                (x * w - tall * 0.02, foot - tall * 0.1, x * w + tall * 0.02, foot + tall * 0.05), fill=255
            )

    canvas.fill(canvas.mask(draw), (lighter(colour, 0.06), colour))


def windows(canvas: Canvas, blocks: list[tuple[float, float, float]], light: RGB, alpha: float) -> None:
    """Light in some of the windows."""
    rng = canvas.rng
    panes: list[tuple[float, float]] = []
    step_x, step_y = 0.013 / max(canvas.aspect, 1), 0.02 * min(canvas.aspect, 1)
    for left, right, top in blocks:
        across = range(1, max(2, round((right - left) / step_x)))
        storeys = range(1, max(1, round((0.87 - top) / step_y)))
        panes += [
            (left + x * step_x, top + y * step_y) for x in across for y in storeys if rng.random() < 0.22
        ]

    def draw(pen: ImageDraw.ImageDraw, w: float, h: float, short: float) -> None:
        for x, y in panes:
            pen.rectangle((x * w, y * h, x * w + 0.0045 * short, y * h + 0.008 * short), fill=255)

    canvas.fill(canvas.mask(draw), light, alpha)


def flakes(canvas: Canvas) -> None:
    """Snow in the air."""
    spots = [
        (canvas.rng.random(), canvas.rng.random(), canvas.rng.uniform(0.0012, 0.0042)) for _ in range(110)
    ]

    def draw(pen: ImageDraw.ImageDraw, w: float, h: float, short: float) -> None:
        for x, y, size in spots:
            r = max(1.0, size * short)
            pen.ellipse((x * w - r, y * h - r, x * w + r, y * h + r), fill=255)

    canvas.fill(canvas.mask(draw), (255, 255, 255), 0.75)


def glitter(canvas: Canvas, palette: Palette, x: float, horizon: float) -> None:
    """The sun's path on the water: thin lenses of light, wider as they come nearer."""
    rng = canvas.rng
    strips = [((n + rng.random()) / 42, rng.uniform(-1, 1), rng.uniform(0.3, 1)) for n in range(42)]

    def draw(pen: ImageDraw.ImageDraw, w: float, h: float, short: float) -> None:
        for share, shift, size in strips:
            y = (horizon + 0.004 + (1 - horizon) * 0.62 * share**1.25) * h
            wide, high = (0.025 + 0.11 * share) * size * short, (0.0014 + 0.0042 * share) * short
            middle = x * w + shift * (0.015 + 0.07 * share) * short
            pen.ellipse((middle - wide, y - high, middle + wide, y + high), fill=255)

    canvas.fill(canvas.mask(draw), (palette.sun, mix(palette.sun, palette.haze, 0.5)), 0.7)
