"""Make thumbnails, as a confined child process: it decodes hostile images, apart from the service.

`receiver.thumbnails.pool` starts this file, which imports nothing of ours, and talks to it over pipes. A
request is a line of JSON, then as many bytes as its `bytes` says; `pixels` is what the image's header says,
`memory` and `seconds` what one image may take, `idle` how long to wait for the next one. The response is a
line of JSON, then as many bytes of WebP as its `bytes` says; or a line with `error`, which says why there is
none. The process exits at the end of the requests; any other end is by a limit, the kernel, or a decoder.
"""

import copy
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
    # Isolated, it finds Pillow where its parent has it.
    sys.path[:0] = sys.argv[1:2]

# All that Pillow loads on demand, because once confined nothing can be opened.
import PIL
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageOps,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

LOADED = (
    *(copy, BmpImagePlugin, GifImagePlugin, ImageOps, MpoImagePlugin, TiffImagePlugin),
    WebPImagePlugin,
)

SIDE = 512
"""The longer side of a thumbnail, in pixels; a smaller image is not made larger."""
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
MAX_TEXT_BYTES = 32 * 1024 * 1024
"""Of one text or colour profile of a PNG, unpacked: ComfyUI keeps whole workflows there."""
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
    """Return a thumbnail in WebP: upright, in sRGB, without metadata; of an animation its first frame.

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
    """Convert to sRGB by the embedded profile, if it can be used."""
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
    """Serve requests until there are no more."""
    requests, responses = sys.stdin.buffer, _responses()
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
        responses.write(json.dumps(head).encode() + b"\n" + made)
        responses.flush()
        _alarm(request["idle"])


def _try(data: bytes) -> tuple[dict[str, int | str], bytes]:
    try:
        made = thumbnail(data)
    except MemoryError:
        return {"error": "it takes too much memory"}, b""
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return {"error": "it has more pixels than its header says"}, b""
    except PIL.UnidentifiedImageError:
        return {"error": "its header cannot be read"}, b""
    except Exception:  # noqa: BLE001 - a decoder may raise anything, and the next image shall be made
        return {"error": "it is damaged, so it cannot be decoded"}, b""
    return {"bytes": len(made)}, made


def _responses() -> BinaryIO:
    # What a decoder prints must not stand among the responses.
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return responses


def _confine() -> None:
    """Drop what a decoder does not need: files, sockets, processes, threads, core dumps."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    Image.preinit()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT_BYTES
    with suppress(OSError, AttributeError):
        os.nice(5)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        # Where memory runs out, the kernel kills this process and not the service.
        file.write("1000")
    if resource is not None:
        for name in ("RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_NPROC"):
            with suppress(OSError, ValueError, AttributeError):
                resource.setrlimit(getattr(resource, name), (0, 0))


def _allow(*, memory: int, seconds: int) -> None:
    """Limit the memory and the time of the next image."""
    _alarm(seconds + 5)  # where the parent died, and kills no more
    if resource is not None:
        _soften(resource.RLIMIT_AS, memory)
        _soften(resource.RLIMIT_CPU, int(time.process_time()) + seconds + 1)


def _alarm(seconds: int) -> None:
    """End this process in so many seconds, by SIGALRM."""
    with suppress(AttributeError):
        signal.alarm(seconds)


def _soften(what: int, most: int) -> None:
    with suppress(OSError, ValueError):
        resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


if __name__ == "__main__":
    main()
