"""The program that makes thumbnails: apart from the service, because it decodes what strangers drew up.

`receiver.thumbnails.pool` starts it, as a file that imports nothing of ours, and talks to it over pipes. A
request is a line of JSON, then as many bytes as its `bytes` says; `pixels` is what the image's header was
found to say, and `memory` and `seconds` what one image may take. The answer is a line of JSON, then as many
bytes of WebP as its `bytes` says; or a line with `error`: a word, or several, for why there is none. Any
other end than the end of the requests is a death: by a limit, by the kernel, or by a bug in a decoder.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
import warnings
from contextlib import suppress
from typing import BinaryIO

try:
    import resource
except ImportError:  # pragma: no cover - no limits on Windows
    resource = None  # type: ignore[assignment]

if __name__ == "__main__":
    # Alone, it finds Pillow where its starter has it.
    sys.path[:0] = sys.argv[1:2]

# All that Pillow would load when it comes to it, because then nothing can be opened any more.
from PIL import (
    AvifImagePlugin,
    Image,
    ImageCms,
    ImageOps,
    MpoImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

LOADED = (ImageOps, MpoImagePlugin, TiffImagePlugin, WebPImagePlugin)

SIDE = 512
"""The longer side of a thumbnail, in pixels; a smaller image is not made larger."""
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
QUALITY = 80

# https://www.cipa.jp/std/documents/e/DC-008-2012_E.pdf, tag Orientation: how to put the picture upright.
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def thumbnail(data: bytes) -> bytes:
    """Make a thumbnail in WebP: upright, in sRGB, without metadata; of an animation its first frame.

    Raises whatever a decoder raises on hostile bytes.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        profile = image.info.get("icc_profile")
        small = _averageable(image)
        # Decodes no more of a JPEG than it needs, which is what takes the time.
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
        small = _in_srgb(small, profile)
        turn = UPRIGHT.get(_orientation(image))
        small = small if turn is None else small.transpose(turn)
        made = io.BytesIO()
        small.save(made, "WEBP", quality=QUALITY, method=4, exif=b"", xmp=b"", icc_profile=b"")
    return made.getvalue()


def _averageable(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey
        return image.point(lambda value: value * (1 / 256)).convert("L")
    if image.mode in {"1", "P", "PA"} or "transparency" in image.info:
        return image.convert("RGBA")
    return image


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The colours as a screen shows them. A profile that cannot be used counts for nothing."""
    plain = "RGBA" if image.mode in {"RGBA", "LA", "RGBa", "La"} else "RGB"
    if profile and image.mode in {"RGB", "RGBA", "CMYK", "L"}:
        with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            made = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=plain)
            if made is not None:
                return made
    return image.convert(plain)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the picture itself was sound
        return 1


def main() -> None:
    """Answer requests until there are no more."""
    requests, answers = sys.stdin.buffer, _answers()
    _confine()
    while line := requests.readline(4096):
        request = json.loads(line)
        data = requests.read(request["bytes"])
        if len(data) < request["bytes"]:
            return
        _allow(memory=request["memory"], seconds=request["seconds"])
        Image.MAX_IMAGE_PIXELS = request["pixels"]
        head, made = _try(data)
        del data
        answers.write(json.dumps(head).encode() + b"\n" + made)
        answers.flush()
        _rest()


def _try(data: bytes) -> tuple[dict[str, int | str], bytes]:
    try:
        made = thumbnail(data)
    except MemoryError:
        return {"error": "it takes too much memory"}, b""
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return {"error": "it has more pixels than its header was found to say"}, b""
    except UnidentifiedImageError:
        return {"error": "its header cannot be read"}, b""
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything, and the next image shall be made
        return {"error": f"it cannot be decoded ({type(error).__name__})"}, b""
    return {"bytes": len(made)}, made


def _answers() -> BinaryIO:
    # Whatever a decoder prints must not stand among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _confine() -> None:
    """Give up what a decoder does not need. What a system does not have is left out."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    Image.preinit()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with suppress(OSError, AttributeError):
        os.nice(5)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        # Where memory runs out, the kernel shall end this process and not the service.
        file.write("1000")
    if resource is not None:
        # No core dump, nothing written, no file or socket opened, no process or thread started.
        for name in ("RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_NPROC"):
            with suppress(OSError, ValueError, AttributeError):
                resource.setrlimit(getattr(resource, name), (0, 0))


def _allow(*, memory: int, seconds: int) -> None:
    """Let the next image have this much memory and time, and no more."""
    with suppress(AttributeError):
        signal.alarm(seconds + 5)  # for whoever was left alone by its starter
    if resource is not None:
        _soften(resource.RLIMIT_AS, memory)
        _soften(resource.RLIMIT_CPU, int(time.process_time()) + seconds + 1)


def _rest() -> None:
    with suppress(AttributeError):
        signal.alarm(0)


def _soften(what: int, most: int) -> None:
    with suppress(OSError, ValueError):
        resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


if __name__ == "__main__":
    main()
