"""Draw a small picture in a terminal, in the way that it understands; nothing where it understands none.

Kitty's graphics protocol: https://sw.kovidgoyal.net/kitty/graphics-protocol/
iTerm2's inline images: https://iterm2.com/documentation-images.html
"""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.color import Color
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS, ROWS = 40, 20
"""The most cells of the terminal that a picture takes."""
MOST_PX = 2048
"""The longest side of a thumbnail that is decoded; Darkroom's have 512."""
CHUNK = 4096
"""Kitty takes so many base64 characters at once."""


class Preview(StrEnum):
    """When pictures are drawn."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Way(StrEnum):
    """How a terminal takes pictures."""

    KITTY = "kitty"
    ITERM = "iterm"
    BLOCKS = "blocks"


def way_of(preview: Preview, console: Console, environ: Mapping[str, str] = os.environ) -> Way | None:
    """How this terminal takes pictures, by what it says of itself; None if none are to be drawn.

    It is not asked: a terminal that does not understand the question would show it. `always` draws blocks
    also where no 24-bit colours are announced. What is not a terminal gets no picture at all.
    """
    if preview is Preview.NEVER or not sys.stdout.isatty() or environ.get("TERM") in {None, "", "dumb"}:
        return None
    graphics = _graphics(environ)
    if graphics:
        return graphics
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    truecolor = console.color_system == "truecolor" and not console.no_color
    return Way.BLOCKS if utf8 and (truecolor or preview is Preview.ALWAYS) else None


def draw(webp: bytes, way: Way, console: Console) -> bool:
    """Draw a thumbnail; False, with nothing drawn, if these bytes are none."""
    image = _decoded(webp)
    if image is None:
        return False
    columns, rows = _room(image, console)
    if way is Way.BLOCKS:
        console.print(_blocks(image, columns, rows), end="")
        return True
    file = io.BytesIO()
    image.save(file, "PNG")
    png = base64.b64encode(file.getvalue()).decode()
    console.file.write(_kitty(png, columns) if way is Way.KITTY else _iterm(png, columns))
    console.file.flush()
    return True


def _graphics(environ: Mapping[str, str]) -> Way | None:
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if term.startswith(("screen", "tmux")) or "TMUX" in environ:
        # They stand between, and would show what they do not understand.
        return None
    if term in {"xterm-kitty", "xterm-ghostty"} or program == "ghostty" or "KITTY_WINDOW_ID" in environ:
        return Way.KITTY
    if program in {"iTerm.app", "WezTerm"} or environ.get("LC_TERMINAL") == "iTerm2":
        return Way.ITERM
    return None


def _decoded(webp: bytes) -> Image | None:
    from PIL import Image, UnidentifiedImageError

    try:
        # Only WebP, and the size looked at first: these bytes came from elsewhere.
        with Image.open(io.BytesIO(webp), formats=["WEBP"]) as opened:
            if max(opened.size) > MOST_PX:
                return None
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return None


def _room(image: Image, console: Console) -> tuple[int, int]:
    """How many cells it takes; a cell is about twice as high as it is wide."""
    columns = max(1, min(COLUMNS, console.width - 1))
    scale = min(columns / image.width, ROWS * 2 / image.height)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale / 2))


def _kitty(png: str, columns: int) -> str:
    # q=2: it shall not answer, or its answer would be typed into the shell.
    chunks = [png[at : at + CHUNK] for at in range(0, len(png), CHUNK)]
    sent = [
        f"\x1b_G{f'a=T,f=100,q=2,c={columns},' if number == 0 else ''}m={int(number < len(chunks) - 1)};"
        f"{chunk}\x1b\\"
        for number, chunk in enumerate(chunks)
    ]
    return "".join(sent) + "\n"


def _iterm(png: str, columns: int) -> str:
    return f"\x1b]1337;File=inline=1;width={columns};preserveAspectRatio=1:{png}\x07\n"


def _blocks(image: Image, columns: int, rows: int) -> Segments:
    small = image.resize((columns, rows * 2))
    pixels = small.tobytes()

    def color(x: int, y: int) -> Color:
        at = (y * columns + x) * 3
        return Color.from_rgb(*pixels[at : at + 3])

    segments = []
    for row in range(rows):
        for x in range(columns):
            # The upper half of the cell is the sign, the lower half its background.
            style = Style(color=color(x, 2 * row), bgcolor=color(x, 2 * row + 1))
            segments.append(Segment("\u2580", style))
        segments.append(Segment.line())
    return Segments(segments)
