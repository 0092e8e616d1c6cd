"""The prompt as a small caption at the foot of a picture."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFilter, ImageFont

LINES = 2
ENOUGH = 400
"""More characters than two lines ever hold."""


def write(picture: Image.Image, text: str) -> Image.Image:
    """Set the text in the lower left corner, in white on a soft shade; nothing if the font lacks it."""
    short = min(picture.size)
    font = ImageFont.load_default(max(8, round(short * 0.0255)))
    lines = _wrap(drawable(text[:ENOUGH]), font, picture.width * 0.8)
    if not lines:
        return picture
    margin, leading = round(short * 0.045), round(short * 0.036)
    top = picture.height - margin - leading * len(lines)
    ink = Image.new("L", picture.size)
    pen = ImageDraw.Draw(ink)
    for number, line in enumerate(lines):
        pen.text((margin, top + number * leading), line, font=font, fill=255)
    picture.paste((8, 8, 20), (0, 0), _shade(ink, short))
    picture.paste((255, 255, 255), (0, 0), ink.point([round(v * 0.92) for v in range(256)]))
    return picture


def _shade(ink: Image.Image, short: int) -> Image.Image:
    small = ink.reduce(4).filter(ImageFilter.GaussianBlur(short * 0.006))
    return small.point([min(140, v * 3) for v in range(256)]).resize(ink.size, Image.Resampling.BICUBIC)


def drawable(text: str) -> str:
    """What of a text the font can draw; nothing if that is less than half of its words."""
    # The font has no accented letters; their plain ones are better than none.
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    plain = plain.translate({0x2013: "-", 0x2014: "-", 0xDF: "ss", 0xF8: "o", 0xE6: "ae"})
    kept = "".join(c if c.isspace() or _has_glyph(c) else "\N{REPLACEMENT CHARACTER}" for c in plain)
    words = [word for word in kept.split() if "\N{REPLACEMENT CHARACTER}" not in word]
    # A text that lost most of its words says nothing true about the prompt.
    return " ".join(words) if len(words) * 2 >= len(kept.split()) else ""


@lru_cache(maxsize=1024)
def _has_glyph(character: str) -> bool:
    font = ImageFont.load_default(20)
    mask = font.getmask(character)
    return mask.getbbox() is not None and bytes(mask) != bytes(font.getmask("\uffff"))


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], _shortened(" ".join(lines[LINES - 1 :]), font, width)]
    return [_shortened(line, font, width) for line in lines]


def _shortened(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "...") > width:
        line = line[:-1]
    return line.rstrip(" ,.;:") + "..."
