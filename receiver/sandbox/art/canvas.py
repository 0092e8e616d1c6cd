"""A canvas with soft light: the few strokes that every scene is made of.

Places are shares of the canvas: x and y from 0 to 1 from the top left; lengths are shares of its shorter
side, so that a scene looks alike in every aspect ratio.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from receiver.sandbox.art.colours import RGB, ramp

Point = tuple[float, float]
Fill = RGB | tuple[RGB, ...]
"""One colour, or several from top to bottom."""

FINER = 2
"""Edges are drawn this much larger and then reduced, which smooths them."""


class Canvas:
    """An RGB picture in the making. `rng` is the one source of chance for all that is painted on it."""

    def __init__(self, width: int, height: int, rng: random.Random) -> None:
        self.width, self.height, self.rng = width, height, rng
        self.short = min(width, height)
        self.image = Image.new("RGB", (width, height))

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width / self.height

    def wash(self, stops: tuple[RGB, ...]) -> None:
        """Cover everything with a gradient from top to bottom."""
        self.image.paste(self._gradient(stops, 0, self.height), (0, 0))

    def field(self, colours: Sequence[RGB], columns: int, rows: int) -> None:
        """Cover everything with colours that melt into each other, from a grid of them."""
        tiny = Image.new("RGB", (columns, rows))
        tiny.putdata(list(colours))
        size = (self.width, self.height)
        # In two steps: cubic from the grid is lively, and the blur takes the grid's corners away.
        middle = tiny.resize((64, 64), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(9))
        self.image.paste(middle.resize(size, Image.Resampling.BICUBIC), (0, 0))

    def glow(self, at: Point, radius: float, colour: RGB, strength: float, falloff: float = 2.0) -> None:
        """Shed light around a place, fading out to nothing at the radius."""
        across = max(2, round(radius * self.short * 2))
        table = [round(255 * strength * (1 - min(v / 181, 1)) ** falloff) for v in range(256)]
        mask = Image.radial_gradient("L").point(table)
        mask = mask.resize((across, across), Image.Resampling.BICUBIC)
        corner = round(at[0] * self.width - across / 2), round(at[1] * self.height - across / 2)
        self.image.paste(colour, (*corner, corner[0] + across, corner[1] + across), mask)

    def mask(self, draw: Callable[[ImageDraw.ImageDraw, float, float, float], None]) -> Image.Image:
        """Draw in white on black; `draw` gets the pencil, the width, the height and the shorter side."""
        width, height = self.width * FINER, self.height * FINER
        sheet = Image.new("L", (width, height))
        draw(ImageDraw.Draw(sheet), width, height, self.short * FINER)
        return sheet.reduce(FINER)

    def polygon(self, points: Sequence[Point]) -> Image.Image:
        """The mask of a polygon."""
        return self.mask(lambda pen, w, h, _: pen.polygon([(x * w, y * h) for x, y in points], fill=255))

    def disc(self, at: Point, radius: float) -> Image.Image:
        """The mask of a disc."""

        def draw(pen: ImageDraw.ImageDraw, w: float, h: float, short: float) -> None:
            x, y, r = at[0] * w, at[1] * h, radius * short
            pen.ellipse((x - r, y - r, x + r, y + r), fill=255)

        return self.mask(draw)

    def ring(self, at: Point, outer: float, inner: float) -> Image.Image:
        """The mask of a ring."""

        def draw(pen: ImageDraw.ImageDraw, w: float, h: float, short: float) -> None:
            x, y, r = at[0] * w, at[1] * h, outer * short
            pen.ellipse(
                (x - r, y - r, x + r, y + r), outline=255, width=max(1, round((outer - inner) * short))
            )

        return self.mask(draw)

    def line(self, points: Sequence[Point], thickness: float) -> Image.Image:
        """The mask of a line with round joints."""

        def draw(pen: ImageDraw.ImageDraw, w: float, h: float, short: float) -> None:
            scaled = [(x * w, y * h) for x, y in points]
            pen.line(scaled, fill=255, width=max(1, round(thickness * short)), joint="curve")

        return self.mask(draw)

    def fill(self, mask: Image.Image, fill: Fill, alpha: float = 1.0, *, shadow: float = 0.0) -> None:
        """Paint through a mask. A gradient runs over the mask's own height; a shadow falls around it."""
        box = mask.getbbox()
        if box is None:
            return
        if shadow:
            self._shade(mask, shadow)
        if alpha < 1:
            mask = mask.point([round(v * alpha) for v in range(256)])
        part = mask.crop(box)
        if isinstance(fill[0], tuple):
            self.image.paste(self._gradient(fill, box[1], box[3], box[2] - box[0]), box[:2], part)
        else:
            self.image.paste(fill, box, part)

    def blurred(self, mask: Image.Image, radius: float) -> Image.Image:
        """A soft copy of a mask; worked out small, since soft things have no detail."""
        small = mask.reduce(8).filter(ImageFilter.GaussianBlur(max(0.5, radius * self.short / 8)))
        return small.resize(mask.size, Image.Resampling.BICUBIC)

    def vignette(self, strength: float) -> None:
        """Darken the corners a little."""
        table = [255 - round(255 * strength * max(0.0, (v / 255 - 0.45) / 0.55) ** 2) for v in range(256)]
        shade = Image.radial_gradient("L").point(table).resize(self.image.size, Image.Resampling.BICUBIC)
        self.image = ImageChops.multiply(self.image, Image.merge("RGB", (shade, shade, shade)))

    def grain(self, strength: int) -> None:
        """Sprinkle fine grain, as film has; it also hides the steps in soft gradients."""
        size = self.image.size
        noise = Image.frombytes("L", size, self.rng.randbytes(size[0] * size[1]))
        noise = noise.point([128 + round((v - 127.5) / 127.5 * strength) for v in range(256)])
        self.image = ImageChops.add(self.image, Image.merge("RGB", (noise, noise, noise)), 1, -128)

    def _shade(self, mask: Image.Image, strength: float) -> None:
        soft = self.blurred(mask, 0.022)
        self.image.paste((10, 8, 30), (0, 0), soft.point([round(v * strength) for v in range(256)]))

    def _gradient(
        self, stops: tuple[RGB, ...], top: int, bottom: int, width: int | None = None
    ) -> Image.Image:
        strip = Image.new("RGB", (1, 48))
        strip.putdata(ramp(stops, 48))
        return strip.resize((width or self.width, max(1, bottom - top)), Image.Resampling.BICUBIC)
