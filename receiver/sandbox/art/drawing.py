"""The sandbox's images: real PNG and JPEG files, painted from what was asked for, the same on every draw."""

from __future__ import annotations

import hashlib
import io
import random
import re
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from receiver.sandbox.art import caption, themes
from receiver.sandbox.art.canvas import Canvas

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
    """Width and height in pixels, for `W:H` or `WxH`, where a square is `side` pixels wide.

    Shapes that are not Imagen's get the same area, in steps of 1/16 of the side; unreadable ones a square.
    """
    if aspect_ratio in SHAPES:
        width, height = SHAPES[aspect_ratio]
        return max(16, width * side // 1024), max(16, height * side // 1024)
    found = re.fullmatch(r"(\d{1,5})\s*[:x]\s*(\d{1,5})", aspect_ratio)
    if not found or "0" in {found[1].lstrip("0") or "0", found[2].lstrip("0") or "0"}:
        return side, side
    ratio = min(max(int(found[1]) / int(found[2]), 0.25), 4.0)
    step = max(1, side // 16)
    return round(side * ratio**0.5 / step) * step, round(side / ratio**0.5 / step) * step


def draw(spec: Spec) -> bytes:
    """Paint an image and encode it; takes a fraction of a second of one core."""
    key = "\0".join((spec.prompt, spec.seed, str(spec.index), spec.model))
    # Chance from the request itself is the point here; nothing is secret about it.
    rng = random.Random(hashlib.sha256(key.encode()).digest())  # noqa: S311
    picture = _patches(spec, rng) if spec.plain else _paint(spec, rng)
    return _encode(picture, spec.extension)


def _patches(spec: Spec, rng: random.Random) -> Image.Image:
    tiny = Image.frombytes("RGB", (4, 4), rng.randbytes(48))
    return tiny.resize((spec.width, spec.height), Image.Resampling.NEAREST)


def _paint(spec: Spec, rng: random.Random) -> Image.Image:
    scene, palette = themes.choose(spec.prompt, rng)
    shrink = min(1.0, PAINTED / min(spec.width, spec.height))
    canvas = Canvas(max(16, round(spec.width * shrink)), max(16, round(spec.height * shrink)), rng)
    themes.SCENES[scene](canvas, palette)
    canvas.vignette(0.22)
    if shrink < 1:
        canvas.image = canvas.image.resize((spec.width, spec.height), Image.Resampling.BICUBIC)
    canvas.grain(4)
    return caption.write(canvas.image, spec.prompt)


def _encode(picture: Image.Image, extension: str) -> bytes:
    file = io.BytesIO()
    if extension == "png":
        picture.save(file, "PNG", compress_level=2)
    else:
        picture.save(file, "JPEG", quality=90, optimize=False)
    return file.getvalue()


class Studio:
    """Draws each image once, in a few threads of its own, and keeps the latest."""

    def __init__(self, threads: int, keep: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="sandbox-studio")
        self._keep = keep
        self._lock = threading.Lock()
        self._kept: OrderedDict[Spec, Future[bytes]] = OrderedDict()

    def order(self, spec: Spec) -> Future[bytes]:
        """The image, now or soon; drawn again if it was dropped."""
        with self._lock:
            if spec not in self._kept:
                self._kept[spec] = self._pool.submit(draw, spec)
            self._kept.move_to_end(spec)
            while len(self._kept) > self._keep:
                self._kept.popitem(last=False)
            return self._kept[spec]

    def close(self) -> None:
        """Finish what is being drawn and drop the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)
