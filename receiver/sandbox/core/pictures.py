"""Draw the sandbox's images: real PNG and JPEG files, from what was asked for, the same on every draw."""

import hashlib
import io
import random
import re
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from receiver.sandbox.core import art

SHAPES = {
    "1:1": (1024, 1024),
    "3:4": (896, 1280),
    "4:3": (1280, 896),
    "9:16": (768, 1408),
    "16:9": (1408, 768),
}
"""What Imagen 4 makes of each aspect ratio at 1K."""
PAINTED = 1024
"""Pictures larger than this are painted at this size and enlarged; grain and caption are always full size."""


@dataclass(frozen=True, slots=True)
class Spec:
    """All that an image depends on. Two equal specs give the same bytes."""

    prompt: str
    model: str
    seed: str = ""
    index: int = 0
    width: int = 1024
    height: int = 1024
    extension: str = "png"
    plain: bool = False
    """Only patches of colour, drawn in a millisecond."""

    @property
    def media_type(self) -> str:
        """The image's true content type."""
        return "image/png" if self.extension == "png" else "image/jpeg"


def size_of(aspect_ratio: str, side: int) -> tuple[int, int]:
    """Return width and height in pixels, for `W:H` or `WxH`, where a square is `side` pixels wide.

    Shapes that are not Imagen's get the same area, in steps of 1/16 of the side; unreadable ones a square.
    """
    if aspect_ratio in SHAPES:
        width, height = SHAPES[aspect_ratio]
        return max(16, width * side // 1024), max(16, height * side // 1024)
    found = re.fullmatch(r"(\d{1,5})\s*[:x]\s*(\d{1,5})", aspect_ratio)
    if not found or not int(found[1]) or not int(found[2]):
        return side, side
    ratio = min(max(int(found[1]) / int(found[2]), 0.25), 4.0)
    step = max(1, side // 16)
    return round(side * ratio**0.5 / step) * step, round(side / ratio**0.5 / step) * step


def draw(spec: Spec) -> bytes:
    """Return an image as a file; takes a fraction of a second of one core."""
    key = "\0".join((spec.prompt, spec.seed, str(spec.index), spec.model))
    # Chance from the request itself is the point here; nothing is secret about it.
    rng = random.Random(hashlib.sha256(key.encode()).digest())  # noqa: S311
    picture = _patches(spec, rng) if spec.plain else _paint(spec, rng)
    file = io.BytesIO()
    if spec.extension == "png":
        picture.save(file, "PNG", compress_level=2)
    else:
        picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def _patches(spec: Spec, rng: random.Random) -> Image.Image:
    tiny = Image.frombytes("RGB", (4, 4), rng.randbytes(48))
    return tiny.resize((spec.width, spec.height), Image.Resampling.NEAREST)


def _paint(spec: Spec, rng: random.Random) -> Image.Image:
    scene, palette = art.choose(spec.prompt, rng)
    shrink = min(1.0, PAINTED / min(spec.width, spec.height))
    canvas = art.Canvas(max(16, round(spec.width * shrink)), max(16, round(spec.height * shrink)), rng)
    scene(canvas, palette)
    picture = canvas.finish((spec.width, spec.height))
    _caption(picture, spec.prompt)
    return picture


def _caption(picture: Image.Image, prompt: str) -> None:
    """Write the beginning of the prompt in the lower left corner, in white on a soft shade."""
    short = min(picture.size)
    font = ImageFont.load_default(max(8, round(short * 0.0255)))
    text = caption(prompt, lambda line: font.getlength(line) <= picture.width * 0.8)
    ink = Image.new("L", picture.size)
    ImageDraw.Draw(ink).text((short * 0.045, picture.height - short * 0.08), text, font=font, fill=255)
    shade = (
        ink.reduce(4)
        .filter(ImageFilter.GaussianBlur(short * 0.006))
        .point([min(140, v * 3) for v in range(256)])
    )
    picture.paste((8, 8, 20), None, shade.resize(ink.size))
    picture.paste(art.WHITE, None, ink)


def caption(prompt: str, fits: Callable[[str], bool]) -> str:
    """Return the beginning of a prompt, as far as the font has its letters and the line has room.

    Returns nothing where the font lacks most of the words, since the rest says nothing true about the prompt.
    """
    # The font has no accented letters; their plain ones are better than none.
    plain = "".join(c for c in unicodedata.normalize("NFKD", prompt[:400]) if not unicodedata.combining(c))
    words = plain.split()
    known = [word for word in words if word.isascii()]
    line = " ".join(known) if 2 * len(known) >= len(words) else ""
    if fits(line):
        return line
    while line and not fits(line + "..."):
        line = line[:-1]
    return line.rstrip(" ,.;:") + "..."


class Studio:
    """Draws each image once, on a few threads, and keeps the latest ones that are drawn."""

    def __init__(self, threads: int, keep: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="sandbox-studio")
        self._again = ThreadPoolExecutor(threads, thread_name_prefix="sandbox-again")
        self._keep = keep
        self._ordered: dict[Spec, Future[bytes]] = {}
        self._drawn: dict[Spec, Future[bytes]] = {}
        """The last used at the end."""
        self._lock = threading.Lock()

    def order(self, spec: Spec, *, now: bool = False) -> Future[bytes]:
        """Return the image, as a future; it is drawn again if it was dropped.

        `now`: a download waits for it, so it does not queue behind the images of jobs that are not finished.
        """
        with self._lock:
            if (drawn := self._drawn.pop(spec, None)) is not None:
                self._drawn[spec] = drawn
                return drawn
            if spec in self._ordered:
                return self._ordered[spec]
            order = self._ordered[spec] = (self._again if now else self._pool).submit(self._draw, spec)
            return order

    def _draw(self, spec: Spec) -> bytes:
        picture = draw(spec)
        with self._lock:
            self._drawn[spec] = self._ordered.pop(spec)
            if len(self._drawn) > self._keep:
                del self._drawn[next(iter(self._drawn))]
        return picture

    def close(self) -> None:
        """Finish what is being drawn and drop the rest."""
        for pool in (self._pool, self._again):
            pool.shutdown(wait=True, cancel_futures=True)
