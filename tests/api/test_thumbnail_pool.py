"""Thumbnails from real child processes: every format, and what a hostile image may do to a decoder."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import monotonic

import psutil
import pytest
from PIL import Image, PngImagePlugin

from receiver.errors import NoThumbnail, Unready
from receiver.thumbnails.pool import LARGE_PIXELS, Thumbnailer, child_command
from tests.support import pictures
from tests.support.pictures import CORNERS, corners, corners_of, encoded, turned
from tests.support.processes import until

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these limits")
PLAIN = {
    "png": encoded(corners(), "PNG"),
    "jpeg": encoded(corners(), "JPEG"),
    "webp": encoded(corners(), "WEBP"),
    "avif": encoded(corners(), "AVIF"),
}


@pytest.fixture(scope="module")
def thumbnailer() -> Iterator[Thumbnailer]:
    made = Thumbnailer()
    yield made
    made.close()
    assert made.children() == []


def make(thumbnailer: Thumbnailer, data: bytes, pixels: int = 900 * 600) -> Image.Image:
    made = thumbnailer.make(io.BytesIO(data), size=len(data), pixels=pixels)
    image = Image.open(io.BytesIO(made))
    assert image.format == "WEBP"
    assert not getattr(image, "is_animated", False)
    return image


def with_text(chunk: str) -> bytes:
    """A PNG with three megabytes of text, such as ComfyUI's workflows."""
    text = PngImagePlugin.PngInfo()
    if chunk == "iTXt":
        text.add_itxt("workflow", "x" * 3_000_000, zip=True)
    else:
        text.add_text("workflow", "x" * 3_000_000, zip=chunk == "zTXt")
    return encoded(corners(), "PNG", pnginfo=text)


UPRIGHT = {
    **PLAIN,
    "progressive": encoded(corners(), "JPEG", progressive=True),
    "cmyk": encoded(corners().convert("CMYK"), "JPEG"),
    "several": encoded(corners(), "MPO", save_all=True, append_images=[corners()]),
    "palette": encoded(corners().quantize(8), "PNG"),
    "gif": encoded(corners(), "GIF"),
    "bmp": encoded(corners(), "BMP"),
    "bmp with palette": encoded(corners().quantize(8), "BMP"),
    "tiff": encoded(corners(), "TIFF"),
    "tiff cmyk": encoded(corners().convert("CMYK"), "TIFF"),
    "tiff by lzw": encoded(corners(), "TIFF", compression="tiff_lzw"),
    "tiff with a jpeg in it": encoded(corners(), "TIFF", compression="jpeg", quality=95),
    "tiff of 64 bits": encoded(corners(), "TIFF", big_tiff=True),
    "3 MB of profile": encoded(corners(), "PNG", icc_profile=bytes(3_000_000)),
    **{f"3 MB of {name}": with_text(name) for name in ("zTXt", "iTXt", "tEXt")},
    "lossless": encoded(corners(), "WEBP", lossless=True),
    "broken profile": encoded(corners(), "PNG", icc_profile=b"no profile at all"),
    **{f"{kind} moves": pictures.animated(kind) for kind in ("PNG", "WEBP", "AVIF")},
    **{f"turned {orientation}": turned("JPEG", orientation) for orientation in range(1, 9)},
    **{f"{kind} turned": turned(kind, 6) for kind in ("PNG", "WEBP", "AVIF")},
}


@pytest.mark.parametrize("data", UPRIGHT.values(), ids=UPRIGHT)
def test_thumbnail_is_upright_in_its_shape(thumbnailer: Thumbnailer, data: bytes) -> None:
    image = make(thumbnailer, data)
    assert (image.size, image.mode) == ((512, 341), "RGB")
    assert corners_of(image) == list(CORNERS)


@pytest.mark.parametrize(
    "data",
    [
        *(encoded(pictures.clear(), kind) for kind in ("PNG", "WEBP", "AVIF")),
        encoded(pictures.clear().quantize(8), "PNG"),
    ],
    ids=["png", "webp", "avif", "palette"],
)
def test_transparency_stays(thumbnailer: Thumbnailer, data: bytes) -> None:
    image = make(thumbnailer, data)
    alpha = image.getchannel("A")
    assert (image.mode, alpha.getpixel((100, 100)), alpha.getpixel((400, 100))) == ("RGBA", 255, 0)


def test_16_bits_of_grey_become_8(thumbnailer: Thumbnailer) -> None:
    image = make(thumbnailer, pictures.grey_of_16_bits()).convert("L")
    row = image.tobytes()[: image.width]
    assert (row[2] < 12, 118 <= row[image.width // 2] <= 138, row[-3] > 243) == (True, True, True)


def test_small_image_is_not_enlarged(thumbnailer: Thumbnailer) -> None:
    assert make(thumbnailer, encoded(corners(60, 40), "PNG"), 2400).size == (60, 40)
    assert make(thumbnailer, encoded(corners(3000, 2), "PNG"), 6000).size == (512, 1)


def test_profile_is_applied_and_metadata_dropped(thumbnailer: Thumbnailer) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    profile = pictures.swapped_profile()
    data = encoded(corners(), "JPEG", exif=exif, icc_profile=profile, comment=b"a secret place", xmp=b"<x/>")
    image = make(thumbnailer, data)
    assert set(image.info) & {"exif", "icc_profile", "xmp", "comment"} == set()
    red, _, blue, _ = corners_of(image)
    assert (red, blue) == (pictures.BLUE, pictures.RED)


def with_bomb() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * 40_000_000, zip=True)
    return encoded(corners(), "PNG", pnginfo=text)


HALVES = {f"half a {kind}": data[: len(data) // 2] for kind, data in PLAIN.items()}
REFUSED: dict[str, tuple[bytes, int, str]] = {
    "bomb": (pictures.bomb(), 100, "more pixels than its header"),
    "small bomb": (pictures.bomb(1000, 1400), 1_000_000, "more pixels than its header"),
    "nothing": (b"", 1, "header"),
    "svg": (b"<svg onload='alert(1)'/>", 1, "header"),
    "40 MB of text": (with_bomb(), 900 * 600, "cannot be decoded|memory"),
    "ico": (encoded(corners(), "ICO"), 900 * 600, "header"),
    "half a tiff": (encoded(corners(), "TIFF", compression="tiff_lzw")[:3000], 900 * 600, "decoded|header"),
    "tiff bomb": (encoded(Image.new("L", (4000, 4000)), "TIFF", compression="tiff_lzw"), 100, "more pixels"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", 1, "header"),
    **{name: (data, 900 * 600, "cannot be decoded|header") for name, data in HALVES.items()},
}


@pytest.mark.parametrize(("data", "pixels", "why"), REFUSED.values(), ids=REFUSED)
def test_refused_image_keeps_the_child(thumbnailer: Thumbnailer, data: bytes, pixels: int, why: str) -> None:
    before = thumbnailer.children()
    with pytest.raises(NoThumbnail, match=why):
        make(thumbnailer, data, pixels)
    assert corners_of(make(thumbnailer, PLAIN["png"])) == list(CORNERS)
    assert set(before) <= set(thumbnailer.children())


def test_broken_images_never_escape_the_child(thumbnailer: Thumbnailer) -> None:
    chance, outcomes = random.Random(7), set()
    small = corners(60, 40)
    samples = [encoded(small, kind) for kind in ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF")]
    samples += [encoded(small, "TIFF", compression="tiff_lzw")]
    samples += [turned("JPEG", 6), encoded(small, "PNG", icc_profile=pictures.swapped_profile())]
    for number in range(180):
        data = bytearray(samples[number % len(samples)])
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            make(thumbnailer, bytes(data))
            outcomes.add("made")
        except NoThumbnail:
            outcomes.add("refused")
    assert outcomes == {"made", "refused"}
    assert corners_of(make(thumbnailer, PLAIN["avif"])) == list(CORNERS)


@LINUX
def test_child_has_limits_and_knows_no_secret(
    thumbnailer: Thumbnailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(thumbnailer, PLAIN["png"])
    proc = Path("/proc") / str(thumbnailer.children()[0])
    limits = {line[:25].strip(): line[26:46].strip() for line in (proc / "limits").read_text().splitlines()}
    for name in ("core file size", "file size", "open files", "processes"):
        assert limits[f"Max {name}"] == "0"
    assert int(limits["Max address space"]) < 300 * 1024 * 1024
    assert int(limits["Max cpu time"]) < 60
    assert (proc / "oom_score_adj").read_text().strip() == "1000"
    names = {line.partition(b"=")[0] for line in (proc / "environ").read_bytes().split(b"\0") if line}
    assert names <= {b"LD_LIBRARY_PATH"}
    assert psutil.Process(thumbnailer.children()[0]).net_connections() == []


@LINUX
def test_memory_limit_is_for_each_image() -> None:
    large = encoded(corners(6000, 4000), "PNG")
    with subprocess.Popen(child_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        heads = []
        for memory in (80 * 1024 * 1024, 512 * 1024 * 1024):
            asked = {"bytes": len(large), "pixels": 24_000_000, "memory": memory, "seconds": 20, "idle": 60}
            child.stdin.write(json.dumps(asked).encode() + b"\n" + large)
            child.stdin.flush()
            heads.append(json.loads(child.stdout.readline()))
            child.stdout.read(heads[-1].get("bytes", 0))
        child.stdin.close()
        assert child.wait(20) == 0
    assert heads[0] == {"error": "it takes too much memory"}
    assert heads[1]["bytes"] > 100


@LINUX
def test_child_exits_when_its_parent_dies(tmp_path: Path) -> None:
    parent = (
        "import io, os, sys\nfrom receiver.thumbnails.pool import Thumbnailer\n"
        "made = Thumbnailer()\ndata = open(sys.argv[1], 'rb').read()\n"
        "made.make(io.BytesIO(data), size=len(data), pixels=900 * 600)\n"
        "print(made.children()[0], flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    (tmp_path / "a.png").write_bytes(PLAIN["png"])
    done = subprocess.run(
        [sys.executable, "-c", parent, str(tmp_path / "a.png")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(10)


def odd(body: str, folder: Path) -> list[str]:
    """Return the command of a child that does something else while `folder` has a file `odd`."""
    (folder / "odd").touch()
    code = ["import os, sys, time", f"if os.path.exists({str(folder / 'odd')!r}):", f"    {body}"]
    script = "\n".join([*code, "os.execv(sys.argv[1], sys.argv[1:])"])
    return [sys.executable, "-c", script, *child_command()]


BLOCKS = "sys.stdin.buffer.read()"
SAYS = "print({!r}, flush=True); " + BLOCKS


ODD = {
    "leaves": "os._exit(3)",
    "aborts": "sys.stdin.readline(); os.abort()",
    "text": SAYS.format("what?"),
    "list": SAYS.format("[]"),
    "object": SAYS.format("{}"),
    "huge": SAYS.format('{"bytes": 9999999999}'),
    "long": SAYS.format("x" * 9999),
    "page": SAYS.format('{"bytes": 13}\n<html></html>'),
    "breaks off": "print('{\"bytes\": 100}', flush=True); sys.stdin.buffer.read(1000000); os._exit(0)",
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_odd_child_is_replaced_for_the_next_image(tmp_path: Path, body: str) -> None:
    check_replaced(tmp_path, body, 20, "decoder crashed")


@pytest.mark.parametrize("body", ["time.sleep(60)", BLOCKS], ids=["sleeps", "says nothing"])
def test_slow_child_is_replaced(tmp_path: Path, body: str) -> None:
    check_replaced(tmp_path, body, 0.7, "more than 0.7 seconds")


def check_replaced(tmp_path: Path, body: str, deadline_s: float, why: str) -> None:
    thumbnailer = Thumbnailer(odd(body, tmp_path), deadline_s=deadline_s)
    large = PLAIN["png"] + bytes(1_000_000)  # more than a pipe holds
    began = monotonic()
    with pytest.raises(NoThumbnail, match=why):
        make(thumbnailer, large)
    assert monotonic() - began < 15
    assert thumbnailer.children() == []
    (tmp_path / "odd").unlink()
    assert corners_of(_made_at_last(thumbnailer, large)) == list(CORNERS)
    thumbnailer.close()


def _made_at_last(thumbnailer: Thumbnailer, data: bytes) -> Image.Image:
    # On a busy machine a child may take longer to start than the short deadlines above.
    for _ in range(20):
        try:
            return make(thumbnailer, data)
        except NoThumbnail:
            continue
    raise AssertionError("no child started in time")


def test_killed_child_costs_only_its_image(tmp_path: Path) -> None:
    thumbnailer = Thumbnailer(odd("sys.stdin.readline(); time.sleep(60)", tmp_path))
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(make, thumbnailer, PLAIN["png"])
        while not (pids := thumbnailer.children()):
            threading.Event().wait(0.01)
        os.kill(pids[0], signal.SIGKILL)
        with pytest.raises(NoThumbnail, match="decoder crashed"):
            making.result(10)
    (tmp_path / "odd").unlink()
    assert corners_of(make(thumbnailer, PLAIN["png"])) == list(CORNERS)
    os.kill(thumbnailer.children()[0], signal.SIGKILL)  # while it waits
    assert corners_of(make(thumbnailer, PLAIN["png"])) == list(CORNERS)
    thumbnailer.close()


def test_child_that_cannot_start_is_unready(tmp_path: Path) -> None:
    with pytest.raises(Unready, match="could be started"):
        make(Thumbnailer([str(tmp_path / "none")]), PLAIN["png"])


def test_children_are_few_and_exit_when_idle() -> None:
    thumbnailer = Thumbnailer(at_once=2, idle_s=1)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make(thumbnailer, PLAIN["webp"]), range(16)))
    assert len(made) == 16
    pids = thumbnailer.children()
    assert 1 <= len(pids) <= 2
    gone = [psutil.Process(pid) for pid in pids]
    until(lambda: thumbnailer.children() == [])
    assert not any(one.is_running() for one in gone)
    make(thumbnailer, PLAIN["webp"])
    thumbnailer.close()


def test_large_images_take_turns(tmp_path: Path) -> None:
    thumbnailer = Thumbnailer(odd("time.sleep(60)", tmp_path), deadline_s=0.4, at_once=4)
    most = 0
    with ThreadPoolExecutor(3) as pool:
        making = [pool.submit(make, thumbnailer, PLAIN["png"], LARGE_PIXELS + 1) for _ in range(3)]
        while not all(one.done() for one in making):
            most = max(most, len(thumbnailer.children()))
            threading.Event().wait(0.01)
    assert most == 1
    thumbnailer.close()
