"""Images of every format from the gateway to the page: what is archived, shown, saved and made small."""

import base64
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxConfig, SandboxServer
from tests.support.live import IMAGEN, Live, started
from tests.unit.test_media import SVG, picture

MEDIA = Path(__file__).parents[1] / "samples" / "media"
FORMATS: dict[str, tuple[bytes, str, str]] = {
    "bmp": (picture("BMP"), "image/bmp", "inline"),
    "tif": (picture("TIFF", compression="tiff_lzw"), "image/tiff", "attachment"),
    "heic": ((MEDIA / "61x43.heic").read_bytes(), "image/heic", "attachment"),
    "jxl": ((MEDIA / "61x43-bare.jxl").read_bytes(), "image/jxl", "attachment"),
    "gif": (picture("GIF"), "application/octet-stream", "attachment"),
    "svg": (
        SVG.replace(b"<path", b'<script>alert(1)</script><path width="61"'),
        "application/octet-stream",
        "attachment",
    ),
}
"""By extension: the bytes, under which type they are served, and whether browsers show them."""
NO_THUMBNAIL = {"heic": "a HEIC", "jxl": "a JPEG XL", "svg": "an SVG"}


@pytest.fixture(scope="module")
def live(s3_server: EmbeddedS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with (
        SandboxServer(SandboxConfig(latency_s=(0.01, 0.02))) as sandbox,
        started(s3_server, tmp_path_factory.mktemp("formats"), sandbox=sandbox) as live,
    ):
        yield live


@pytest.fixture(scope="module")
def outputs(live: Live) -> dict[str, dict[str, Any]]:
    """An output of each format; the parameters of its job name it, as GIF and SVG need."""
    found = {}
    for extension, (data, _, _) in FORMATS.items():
        uri = f"data:image/{extension};base64,{base64.b64encode(data).decode()}"
        job = live.make(IMAGEN, fault={"fault": "odd_link", "url": uri})
        assert job["status"] == "archived", job
        (found[extension],) = job["outputs"]
    return found


@pytest.mark.parametrize("extension", FORMATS)
def test_every_format_is_archived_and_safe_to_open(
    live: Live, outputs: dict[str, dict[str, Any]], extension: str
) -> None:
    output, (data, served, shown) = outputs[extension], FORMATS[extension]
    true = {"tif": "image/tiff", "svg": "image/svg+xml"}.get(extension, f"image/{extension}")
    assert (output["media_type"], output["sha256"]) == (true, hashlib.sha256(data).hexdigest())
    assert output["key"].endswith(f".{extension}")
    if extension != "svg":
        assert (output["width"], output["height"]) == (61, 43)
    at = f"/v1/outputs/{output['id']}/image"
    streamed = live.http.get(at, params={"stream": 1})
    stored = httpx.get(live.http.get(at).headers["location"], trust_env=False)
    for answer in (streamed, stored):
        assert answer.content == data
        assert answer.headers["content-type"] == served
        assert answer.headers["content-disposition"].startswith(f"{shown}; filename=")
        assert f".{extension}" in answer.headers["content-disposition"]
    assert streamed.headers["x-content-type-options"] == "nosniff"
    policy = {part.strip() for part in streamed.headers["content-security-policy"].split(";")}
    assert {"sandbox", "default-src 'none'"} <= policy
    for headers in ({"range": "bytes=0-9"}, {}):
        method = "GET" if headers else "HEAD"
        answer = live.http.request(method, at, params={"stream": 1}, headers=headers)
        assert answer.headers["content-disposition"].startswith(shown)
        assert answer.headers["content-type"] == served


@pytest.mark.parametrize("extension", FORMATS)
def test_every_format_has_a_thumbnail_or_says_why_not(
    live: Live, outputs: dict[str, dict[str, Any]], extension: str
) -> None:
    answer = live.http.get(f"/v1/outputs/{outputs[extension]['id']}/thumbnail")
    if extension in NO_THUMBNAIL:
        assert (answer.status_code, answer.json()["code"]) == (422, "no_thumbnail")
        assert NO_THUMBNAIL[extension] in answer.json()["detail"]
    else:
        assert Image.open(io.BytesIO(answer.content)).size == (61, 43)


@pytest.mark.parametrize("extension", FORMATS)
def test_the_page_shows_what_browsers_show(
    live: Live, outputs: dict[str, dict[str, Any]], extension: str
) -> None:
    """What they do not is offered to be saved, with its thumbnail if there is one."""
    at = f"/v1/outputs/{outputs[extension]['id']}"
    page = live.http.get(f"/outputs/{outputs[extension]['id']}").text
    assert "alert(1)" not in page
    assert f'href="{at}/image?stream=1"' in page
    assert (f'src="{at}/image?stream=1"' in page) is (FORMATS[extension][2] == "inline")
    small = FORMATS[extension][2] == "attachment" and extension not in NO_THUMBNAIL
    assert (f'id="image" src="{at}/thumbnail"' in page) is small


def test_a_search_finds_them_by_type(live: Live, outputs: dict[str, dict[str, Any]]) -> None:
    for extension, output in outputs.items():
        found = live.http.get("/v1/outputs", params={"q": f"type:{extension}"}).json()["outputs"]
        assert [one["id"] for one in found] == [output["id"]]
