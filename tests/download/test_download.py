"""What a download takes for an image and what it does not, against a server that lies."""

import base64
import gzip
import hashlib
import socket
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryFile
from urllib.parse import quote

import brotli
import pytest

from receiver.download import unwrap
from receiver.download.connections import HEAD_BYTES
from receiver.download.downloader import Downloader, DownloadPolicy, EndMissing
from receiver.download.ssrf import parse_target
from receiver.download.unwrap import zstd
from receiver.errors import (
    DarkroomError,
    ImageError,
    ImageExpired,
    ImageTooLarge,
    ImageTruncated,
    ImageUnavailable,
    LinkRefused,
    NotAnImage,
    Unready,
)
from tests.support.raw_server import PNG, Script, Serve, picture, redirect, reply
from tests.unit.test_media import SMALL

POLICY = DownloadPolicy(allow_networks=(ip_network("127.0.0.0/8"),), timeout_s=20)
STALLED = replace(POLICY, timeout_s=0.3)


def failure(
    downloader: Downloader,
    url: str,
    kind: type[DarkroomError],
    why: str | None = None,
    hosts: Sequence[str] = (),
) -> None:
    with pytest.raises(kind, match=why) as caught, downloader.fetch(parse_target(url), hosts=hosts):
        pass
    assert type(caught.value) is kind
    assert "secret" not in str(caught.value)


def fetched(downloader: Downloader, url: str, hosts: Sequence[str] = ()) -> None:
    """Fetch the picture whole."""
    with downloader.fetch(parse_target(url), hosts=hosts) as image:
        assert image.file.read() == PNG


@pytest.mark.parametrize(
    ("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")]
)
def test_image_arrives_whole_with_its_digest(serve: Serve, kind: str, media_type: str) -> None:
    body = picture(kind)
    server = serve({"/a.png": reply(body, Content_Type="text/plain")})
    with Downloader(POLICY).fetch(parse_target(f"{server.url}/a.png?sig=secret#x")) as fetched:
        assert fetched.file.read() == body
        assert fetched.sha256 == hashlib.sha256(body).hexdigest()
        assert fetched.bytes == len(body)
        assert (fetched.facts.media_type, fetched.facts.width, fetched.facts.height) == (media_type, 64, 48)
        assert fetched.declared_type == "text/plain"
        assert fetched.source_url == f"{server.url}/a.png"
    assert fetched.file.closed


def test_request_asks_for_the_bytes_as_they_are(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG)})
    fetched(Downloader(POLICY), f"{server.url}/a.png?sig=a%2Fb+c")
    head = server.heads[0]
    assert head.startswith("GET /a.png?sig=a%2Fb+c HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{server.port}\r\n" in head
    assert "Accept-Encoding: identity\r\n" in head
    assert "cookie" not in head.lower()
    assert "authorization" not in head.lower()


def test_chunked_and_unannounced_lengths_are_taken(serve: Serve) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(PNG), PNG)
    server = serve(
        {"/chunked": chunked, "/unannounced": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + PNG}
    )
    for path in server.scripts:
        fetched(Downloader(POLICY), server.url + path)


def test_error_of_the_caller_is_passed_on(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG)})
    with (
        pytest.raises(OSError, match="mine"),
        Downloader(POLICY).fetch(parse_target(f"{server.url}/a.png")) as image,
    ):
        raise OSError("mine")
    assert image.file.closed


@pytest.mark.parametrize(
    ("error", "statuses"),
    [
        (ImageExpired, [404, 410]),
        (LinkRefused, [400, 401, 403, 451]),
        (ImageUnavailable, [408, 425, 429, 500, 503, 204, 206, 302, 304]),
    ],
)
def test_status_tells_a_dead_link(serve: Serve, error: type[DarkroomError], statuses: list[int]) -> None:
    for status in statuses:
        server = serve({"/a.png": reply(status=f"{status} Told")})
        told = rf"^127\.0\.0\.1:{server.port}/a\.png returned HTTP {status}\.$"
        failure(Downloader(POLICY), f"{server.url}/a.png?sig=secret", error, told)


SIGNATURE = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
EXPIRED = (
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message>'
    b"<ServerTime>2026-11-30T12:00:00Z</ServerTime><RequestId>ABCDEFGHIJKL</RequestId></Error>"
)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (EXPIRED, ' It said: "AccessDenied Request has expired"'),
        (b'{"error": "link expired"}', ' It said: "{"error": "link expired"}"'),
        (
            b"<html><style>p {}</style><title>Just a moment...</title><p>Ray id 1</p>",
            ' It said: "Just a moment..."',
        ),
        (b"<script>steal()</script><p>Only for <b>members</b></p>", ' It said: "Only for members"'),
        (b"Signature %s is wrong" % SIGNATURE.encode(), ' It said: "Signature [removed] is wrong"'),
        (b"See https://a.example/?token=abcdef", ' It said: "See https://a.example/?[removed]"'),
        (b"one\r\ntwo\x1b[31m\xff \xe2\x80\xaethree", ' It said: "one two [31m three"'),
        (b"no " * 9_000, f' It said: "{("no " * 99)[:159]}…"'),
        (b"", ""),
        (b"\x89PNG\r\n" + bytes(99), ' It said: "PNG"'),
        (bytes(9), ""),
    ],
)
def test_a_refusal_is_quoted(serve: Serve, body: bytes, said: str) -> None:
    server = serve({"/a.png": reply(body, status="403 Forbidden")})
    with (
        pytest.raises(LinkRefused) as caught,
        Downloader(POLICY).fetch(parse_target(f"{server.url}/a.png?X-Amz-Signature={SIGNATURE}")),
    ):
        pass
    assert str(caught.value) == f"127.0.0.1:{server.port}/a.png returned HTTP 403.{said}"


def test_a_refusal_that_breaks_off_is_still_one(serve: Serve) -> None:
    for text in (b"", b"only some"):
        server = serve({"/a.png": reply(text, status="403 Forbidden", length=999)})
        failure(Downloader(POLICY), f"{server.url}/a.png", LinkRefused, "returned HTTP 403")


def reset(sock: socket.socket) -> None:
    sock.sendall(reply(PNG[:100], length=len(PNG)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNANNOUNCED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


def test_announced_size_over_the_limit_is_refused(serve: Serve) -> None:
    server = serve({"/a.png": reply(length=POLICY.max_bytes + 1)})
    failure(Downloader(POLICY), f"{server.url}/a.png", ImageTooLarge)


def test_unannounced_size_over_the_limit_is_cut_off(serve: Serve) -> None:
    def endless(sock: socket.socket) -> None:
        sock.sendall(UNANNOUNCED + PNG)
        while not server.over.is_set():
            sock.sendall(bytes(65536))

    server = serve({"/a.png": endless})
    downloader = Downloader(replace(POLICY, max_bytes=1_000_000))
    failure(downloader, f"{server.url}/a.png", ImageTooLarge, "DARKROOM_DOWNLOAD__MAX_BYTES")


def test_limits_are_allowed_and_no_pixel_more(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG, Content_Encoding="identity")})
    limits = replace(POLICY, max_bytes=len(PNG), max_pixels=64 * 48)
    fetched(Downloader(limits), f"{server.url}/a.png")
    failure(Downloader(replace(limits, max_pixels=64 * 48 - 1)), f"{server.url}/a.png", ImageTooLarge)


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", reply(PNG[:500], length=len(PNG))])
def test_stalled_server_is_given_up(serve: Serve, start: bytes) -> None:
    def stall(sock: socket.socket) -> None:
        sock.sendall(start)
        server.over.wait(20)

    server = serve({"/a.png": stall})
    failure(Downloader(STALLED), f"{server.url}/a.png", ImageUnavailable)


def dripping(start: bytes) -> Script:
    """Sends a byte now and then, for some seconds at most."""
    pause = threading.Event()

    def drip(sock: socket.socket) -> None:
        sock.sendall(start)
        for _ in range(1000):
            sock.sendall(b"a")
            pause.wait(0.005)

    return drip


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX-Pad: ", reply(length=100_000)])
def test_drips_do_not_stretch_the_time_for_the_whole(serve: Serve, start: bytes) -> None:
    server = serve({"/a.png": dripping(start)})
    failure(Downloader(STALLED), f"{server.url}/a.png", ImageUnavailable, "took too long")


def test_slow_drip_is_given_up_long_before(serve: Serve) -> None:
    server = serve({"/a.png": dripping(reply(PNG[:500], length=100_000))})
    policy = replace(POLICY, timeout_s=600, drip_bytes=1_000_000, drip_seconds=0.2)
    failure(Downloader(policy), f"{server.url}/a.png", ImageUnavailable, "came too slowly")


def test_closing_ends_a_download_under_way(serve: Serve) -> None:
    downloader = Downloader(POLICY)

    def close_in_the_middle(sock: socket.socket) -> None:
        downloader.close()
        sock.sendall(reply(PNG))

    server = serve({"/a.png": close_in_the_middle})
    for _ in range(2):
        failure(downloader, f"{server.url}/a.png", ImageUnavailable, "stopping")
    assert server.connections == 1


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    failure(Downloader(STALLED), f"http://127.0.0.1:{port}/a.png?sig=secret", ImageUnavailable)


def test_large_image_lies_in_the_directory_for_a_while(serve: Serve, tmp_path: Path) -> None:
    server = serve({"/a.png": reply(PNG)})
    policy = replace(POLICY, spool_bytes=100)
    fetched(Downloader(policy, directory=tmp_path), f"{server.url}/a.png")
    assert list(tmp_path.iterdir()) == []
    failure(Downloader(policy, directory=tmp_path / "gone"), f"{server.url}/a.png", Unready)


# Answers that are hardly HTTP, or HTTP at its oddest.

PLAIN = b"HTTP/1.1 200 OK\r\n"
SIZE = b"Content-Length: %d\r\n" % len(PNG)
WHOLE = b"%x\r\n%s\r\n0\r\n" % (len(PNG), PNG)
AT_ONCE_S = 10
"""Far below the time that a download may take, so that it was not the time that ended it."""


TAKEN: dict[str, bytes] = {
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + PNG,
    "no reason": b"HTTP/1.1 200\r\n" + SIZE + b"\r\n" + PNG,
    "lines that end early": PLAIN.replace(b"\r", b"") + SIZE.replace(b"\r", b"") + b"\n" + PNG,
    "interim answers": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + reply(PNG),
    "the same length twice": PLAIN + SIZE + SIZE + b"\r\n" + PNG,
    "a length beside chunks": PLAIN + b"Content-Length: 5\r\n" + CHUNKED[17:] + WHOLE + b"\r\n",
    "chunk extensions": CHUNKED + WHOLE.replace(b"\r\n", b";name=value\r\n", 1) + b"\r\n",
    "trailers": CHUNKED + WHOLE + b"X-Checksum: 1\r\nContent-Length: 3\r\n\r\n",
    "bytes behind the announced end": reply(PNG) + b"HTTP/1.1 200 OK\r\n\r\nsecret",
    "chunks of 20 bytes": CHUNKED
    + b"".join(b"%x\r\n%s\r\n" % (len(PNG[at : at + 20]), PNG[at : at + 20]) for at in range(0, len(PNG), 20))
    + b"0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("answer", TAKEN.values(), ids=TAKEN)
def test_odd_answer_is_taken_for_what_it_says(serve: Serve, answer: bytes) -> None:
    server = serve({"/a.png": answer})
    fetched(Downloader(POLICY), f"{server.url}/a.png")


JPEG = picture("JPEG")
BARE = zlib.compressobj(wbits=-15)


def parts(*contents: bytes, kind: bytes = b"application/octet-stream") -> bytes:
    """A multipart body; the boundary within a part is a longer one."""
    pieces = (b"\r\nContent-Type: " + kind + b"\r\n\r\n" + content for content in contents)
    return b"--b" + b"\r\n--b".join(pieces) + b"\r\n--b--\r\n"


JXL = (Path(__file__).parents[1] / "samples" / "media" / "61x43-bare.jxl").read_bytes()
WIDE = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
WIDE_ZSTD = WIDE.compress(PNG[:99]) + WIDE.compress(PNG[99:]) + WIDE.flush()
WRAPPED: dict[str, tuple[bytes, str, list[str]]] = {
    "header repeated from an upload": (PNG, "aws-chunked", []),
    "encodings that mean nothing": (PNG, "identity, utf-8, none", []),
    "encoding that is not so": (PNG, "gzip", []),
    "two that are not so": (PNG, "identity, br", []),
    "gzip": (gzip.compress(PNG), "gzip", ["gzip"]),
    "gzip in capitals": (gzip.compress(PNG), "X-GZIP", ["gzip"]),
    "gzip unannounced": (gzip.compress(PNG), "", ["gzip"]),
    "gzip under another name": (gzip.compress(PNG), "br", ["gzip"]),
    "gzip from an upload": (gzip.compress(PNG), "aws-chunked,gzip", ["gzip"]),
    "gzip in pieces": (gzip.compress(PNG[:99]) + gzip.compress(PNG[99:]), "gzip", ["gzip"]),
    "gzip in pieces, and padding": (
        gzip.compress(PNG[:99]) + gzip.compress(PNG[99:]) + bytes(9),
        "",
        ["gzip"],
    ),
    "gzip twice": (gzip.compress(gzip.compress(PNG)), "gzip", ["gzip", "gzip"]),
    "deflate": (zlib.compress(PNG), "deflate", ["deflate"]),
    "deflate without its frame": (BARE.compress(PNG) + BARE.flush(), "deflate", ["deflate"]),
    "brotli": (brotli.compress(PNG), "br", ["br"]),
    "zstd": (zstd.compress(PNG), "zstd", ["zstd"]),
    "zstd unannounced": (zstd.compress(PNG), "", ["zstd"]),
    "zstd in frames": (zstd.compress(PNG[:99]) + zstd.compress(PNG[99:]), "zstd", ["zstd"]),
    "gzip in brotli": (brotli.compress(gzip.compress(PNG)), "gzip, br", ["br", "gzip"]),
    "lines before its start": (b"\r\n\r\n" + PNG, "", ["4 bytes"]),
    "byte order mark before its start": (b"\xef\xbb\xbf" + PNG, "", ["3 bytes"]),
    "base64": (base64.encodebytes(PNG), "", ["base64"]),
    "data URI": (b"data:image/png;base64," + base64.b64encode(PNG), "", ["base64"]),
    "base64 for URLs": (base64.urlsafe_b64encode(PNG).rstrip(b"="), "", ["base64"]),
    "multipart": (parts(PNG), "", ["multipart"]),
    "multipart with a line before": (b"\r\n" + parts(PNG), "", ["multipart"]),
    "multipart with other parts": (parts(b'{"seed": 7}', PNG, b"--boundary is a word"), "", ["multipart"]),
    "multipart with lines alone": (parts(PNG).replace(b"\r\n--", b"\n--"), "", ["multipart"]),
    "multipart with base64 in it": (
        parts(base64.encodebytes(PNG), kind=b"image/png"),
        "",
        ["multipart", "base64"],
    ),
    "multipart in gzip": (gzip.compress(parts(b"{}", PNG)), "gzip", ["gzip", "multipart"]),
}


@pytest.mark.parametrize(("body", "encoding", "wrappers"), WRAPPED.values(), ids=WRAPPED)
def test_bytes_decide_and_not_the_header(
    serve: Serve, body: bytes, encoding: str, wrappers: list[str]
) -> None:
    server = serve({"/a.png": reply(body, Content_Encoding=encoding or "identity")})
    with Downloader(POLICY).fetch(parse_target(f"{server.url}/a.png")) as image:
        assert image.file.read() == PNG
        assert (image.sha256, image.bytes) == (hashlib.sha256(PNG).hexdigest(), len(PNG))
        assert list(image.wrappers) == wrappers


BOMB = PNG + bytes(100_000_000)


def test_base64_is_decoded_piece_by_piece() -> None:
    data = PNG + bytes(30_000_000)
    with TemporaryFile() as file:
        file.write(base64.encodebytes(data))
        file.seek(0)
        found = unwrap.find(file.read(unwrap.HEAD_BYTES), [])
        assert found is not None
        digest = hashlib.sha256()
        tracemalloc.start()
        for piece in found[1](file):
            digest.update(piece)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(BOMB), "gzip"),
        (zlib.compress(BOMB), "deflate"),
        (brotli.compress(BOMB, quality=5), "br"),
        (zstd.compress(BOMB), "zstd"),
    ],
    ids=["gzip", "deflate", "br", "zstd"],
)
def test_decompression_bomb_is_cut_off(serve: Serve, body: bytes, encoding: str) -> None:
    assert len(body) < 200_000
    server = serve({"/a.png": reply(body, Content_Encoding=encoding)})
    tracemalloc.start()
    failure(Downloader(replace(POLICY, max_bytes=2_000_000)), f"{server.url}/a.png", ImageTooLarge)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize(
    ("form", "extension"), [(picture("GIF"), "gif"), (b'<svg xmlns="x" viewBox="0 0 64 48"/>', "svg")]
)
def test_gif_and_svg_are_for_those_who_asked(serve: Serve, form: bytes, extension: str) -> None:
    server = serve({"/a": reply(form)})
    failure(Downloader(POLICY), f"{server.url}/a", NotAnImage)
    with Downloader(POLICY).fetch(parse_target(f"{server.url}/a"), also=[extension]) as image:
        assert image.file.read() == form
        assert (image.facts.extension, image.facts.width, image.facts.height) == (extension, 64, 48)


def test_image_without_an_end_is_kept_on_request(serve: Serve) -> None:
    server = serve({"/a.jpg": reply(JPEG[:-2])})
    url, digest = f"{server.url}/a.jpg", hashlib.sha256(JPEG[:-2]).hexdigest()
    failure(Downloader(POLICY), url, EndMissing, digest)
    with pytest.raises(EndMissing), Downloader(POLICY).fetch(parse_target(url), unended="0" * 64):
        pass
    with Downloader(POLICY).fetch(parse_target(url), unended=digest) as image:
        assert (image.file.read(), image.complete) == (JPEG[:-2], False)


def test_a_bare_jpeg_xl_is_whole_by_its_length(serve: Serve) -> None:
    server = serve({"/a.jxl": reply(JXL)})
    with Downloader(POLICY).fetch(parse_target(f"{server.url}/a.jxl")) as image:
        assert (image.file.read(), image.complete, image.facts.extension) == (JXL, True, "jxl")


def test_a_wide_zstd_says_what_is_allowed(serve: Serve) -> None:
    server = serve({"/a.png": reply(WIDE_ZSTD)})
    failure(Downloader(POLICY), f"{server.url}/a.png", NotAnImage, "more than 8388608 bytes")


@pytest.mark.parametrize(
    ("uri", "content", "complete"),
    [
        (f"data:image/png;base64,{base64.b64encode(PNG).decode()}", PNG, True),
        (f"data:;base64,{quote(base64.b64encode(PNG))}", PNG, True),
        (f"data:image/png;base64,{base64.encodebytes(PNG).decode()}", PNG, True),
        (f"data:image/png;base64,{base64.urlsafe_b64encode(PNG).decode().rstrip('=')}", PNG, True),
        (f"data:image/png,{quote(PNG)}", PNG, True),
        (f"data:image/jxl;base64,{base64.b64encode(JXL).decode()}", JXL, True),
        (f"data:image/jpeg;base64,{base64.b64encode(JPEG[:-2]).decode()}", JPEG[:-2], False),
        (f"data:image/png;base64,{base64.b64encode(gzip.compress(PNG)).decode()}", PNG, True),
    ],
)
def test_an_image_in_the_answer_itself(uri: str, content: bytes, complete: bool) -> None:
    """One without its end is as it is at once: no other try would show more."""
    with Downloader(POLICY).unpack(uri) as image:
        assert (image.file.read(), image.complete, image.source_url) == (content, complete, "")
        assert image.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("content", ["!!!!", "iVBORw0KGgo=AAAA", "iVBORw0KGgo", ""])
def test_an_image_in_the_answer_that_is_none(content: str) -> None:
    with pytest.raises(ImageError), Downloader(POLICY).unpack(f"data:image/png;base64,{content}"):
        pass


@pytest.mark.parametrize("is_base64", [True, False])
def test_a_large_image_in_the_answer_costs_little_memory(is_base64: bool) -> None:
    data = PNG + bytes(20_000_000)
    uri = (
        "data:;base64," + base64.b64encode(data).decode() if is_base64 else "data:," + quote(data[:3_000_000])
    )
    tracemalloc.start()
    with Downloader(POLICY).unpack(uri) as image:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert image.bytes == (len(data) if is_base64 else 3_000_000)
    assert peak < 8_000_000


REFUSED: dict[str, tuple[Script | bytes, type[DarkroomError]]] = {
    "length_too_long": (reply(PNG, length=len(PNG) + 1), ImageTruncated),
    "length_too_short": (reply(PNG, length=len(PNG) - 20), ImageTruncated),
    "jpeg_too_short": (reply(JPEG, length=len(JPEG) - 2), EndMissing),
    "reset_in_the_middle": (reset, ImageTruncated),
    "chunks_break_off": (CHUNKED + b"%x\r\n" % len(PNG) + PNG[:500], ImageTruncated),
    "chunks_are_garbage": (CHUNKED + b"zz\r\nsecret", ImageTruncated),
    "png_without_an_end": (reply(PNG[:-12]), ImageTruncated),
    "html": (reply(b"<html><script>secret</script></html>", Content_Type="image/png"), NotAnImage),
    "page in gzip": (reply(gzip.compress(b"<html>secret"), Content_Encoding="gzip"), NotAnImage),
    "second gzip cut": (reply(gzip.compress(PNG[:99]) + gzip.compress(PNG[99:])[:-20]), NotAnImage),
    "gzip without end": (reply(gzip.compress(b"") * 5000), NotAnImage),
    "gzip cut": (reply(gzip.compress(PNG)[:-20], Content_Encoding="gzip"), NotAnImage),
    "brotli cut": (reply(brotli.compress(PNG)[:-20], Content_Encoding="br"), NotAnImage),
    "zstd cut": (reply(zstd.compress(PNG)[:-20]), NotAnImage),
    "page called brotli": (reply(b"<html>secret", Content_Encoding="br"), NotAnImage),
    "base64 cut": (reply(base64.b64encode(PNG)[:-3]), NotAnImage),
    "base64 that goes on": (reply(base64.b64encode(PNG)[:402] + b"==AAAA"), NotAnImage),
    "multipart cut": (reply(parts(PNG)[:-9]), NotAnImage),
    "multipart of two images": (reply(parts(PNG, JPEG)), NotAnImage),
    "multipart of none": (reply(parts(b"<html>secret")), NotAnImage),
    "multipart of many parts": (reply(parts(PNG, *[b"secret"] * 99)), NotAnImage),
    "zstd that asks for 128 MiB": (reply(WIDE_ZSTD), NotAnImage),
    "bare JPEG XL without its length": (UNANNOUNCED + JXL, ImageTruncated),
    "page in base64": (reply(base64.b64encode(PNG)[:40] + b"\n<html>secret"), NotAnImage),
    "four layers": (reply(gzip.compress(gzip.compress(gzip.compress(gzip.compress(PNG))))), NotAnImage),
    "no_http": (b"SSH-2.0-secret\r\n\r\n", ImageUnavailable),
    "two_lengths": (reply(PNG, Content_Length="5"), ImageUnavailable),
    "absurd_length": (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", ImageUnavailable),
    "endless_headers": (b"HTTP/1.1 200 OK\r\n" + b"X-Pad: secret\r\n" * 20_000, ImageUnavailable),
    "upgrade": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: secret\r\n\r\n", ImageUnavailable),
    "says_nothing": (b"", ImageUnavailable),
    "HTTP/0.9": (PNG, ImageUnavailable),
    "HTTP/2": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18), ImageUnavailable),
    "TLS": (b"\x15\x03\x01\x00\x02\x02\x46", ImageUnavailable),
    "no status": (b"HTTP/1.1 OK\r\n\r\n" + PNG, ImageUnavailable),
    "status of four digits": (b"HTTP/1.1 2000 OK\r\n\r\n" + PNG, ImageUnavailable),
    "negative length": (PLAIN + b"Content-Length: -1\r\n\r\n" + PNG, ImageUnavailable),
    "signed length": (PLAIN + SIZE.replace(b": ", b": +") + b"\r\n" + PNG, ImageUnavailable),
    "length in hex": (PLAIN + b"Content-Length: 0xff\r\n\r\n" + PNG, ImageUnavailable),
    "length and a half": (PLAIN + b"Content-Length: 5.5\r\n\r\n" + PNG, ImageUnavailable),
    "no length in its place": (PLAIN + b"Content-Length: \r\n\r\n" + PNG, ImageUnavailable),
    "two lengths in one": (PLAIN + b"Content-Length: 5, 6\r\n\r\n" + PNG, ImageUnavailable),
    "packed on the way": (PLAIN + b"Transfer-Encoding: gzip\r\n\r\n" + PNG, ImageUnavailable),
    "packed in chunks": (PLAIN + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + WHOLE, ImageUnavailable),
    "unknown encoding": (PLAIN + b"Transfer-Encoding: secret\r\n\r\n" + PNG, ImageUnavailable),
    "header without a name": (PLAIN + b": secret\r\n\r\n" + PNG, ImageUnavailable),
    "header with a NUL": (PLAIN + b"X-A: \x00secret\r\n\r\n" + PNG, ImageUnavailable),
    "space before the colon": (PLAIN + b"Content-Length : 5\r\n\r\n" + PNG, ImageUnavailable),
    "part of it": (reply(PNG, "206 Partial Content", Content_Range="bytes 0-9/10"), ImageUnavailable),
    "image of an error": (reply(PNG, "500 Internal Server Error"), ImageUnavailable),
    "reset content": (reply(PNG, "205 Reset Content"), ImageUnavailable),
    "length without bytes": (PLAIN + SIZE + b"\r\n", ImageTruncated),
    "nothing until the end": (UNANNOUNCED, ImageTruncated),
    "no chunks": (CHUNKED + b"0\r\n\r\n", ImageTruncated),
    "chunk that is absurd": (CHUNKED + b"F" * 20 + b"\r\n" + PNG, ImageTruncated),
    "chunk of 21 digits": (CHUNKED + b"F" * 21 + b"\r\n" + PNG, ImageTruncated),
    "negative chunk": (CHUNKED + b"-5\r\n" + PNG, ImageTruncated),
    "chunk longer than it says": (CHUNKED + b"5\r\n" + PNG, ImageTruncated),
    "no last chunk": (CHUNKED + WHOLE[:-3], ImageTruncated),
    "no end of the trailers": (CHUNKED + WHOLE + b"X-A: b\r\n", ImageTruncated),
    "broken trailer": (CHUNKED + WHOLE + b"secret\r\n\r\n", ImageTruncated),
    "redirect to nowhere": (redirect(""), ImageUnavailable),
    "cut in its header": (UNANNOUNCED + PNG[:20], ImageTruncated),
    "cut AVIF": (UNANNOUNCED + SMALL["avif"][:-1], ImageTruncated),
}


@pytest.mark.parametrize(("answer", "error"), REFUSED.values(), ids=REFUSED)
def test_odd_answer_is_refused(serve: Serve, answer: Script | bytes, error: type[DarkroomError]) -> None:
    server = serve({"/a.png": answer})
    failure(Downloader(replace(POLICY, timeout_s=600)), f"{server.url}/a.png?sig=secret", error)


def flood(start: bytes, more: bytes) -> Script:
    """Sends without end, until the other side has had enough."""

    def send(sock: socket.socket) -> None:
        sock.sendall(start)
        while True:
            sock.sendall(more)

    return send


FLOODS: dict[str, tuple[bytes, bytes, type[DarkroomError]]] = {
    "status line": (b"HTTP/1.1 200 ", b"O" * 65536, ImageUnavailable),
    "header line": (PLAIN + b"X-Pad: ", b"secret" * 10_000, ImageUnavailable),
    "folded header": (PLAIN + b"X-Pad: a\r\n", b" secret\r\n" * 8000, ImageUnavailable),
    "headers": (PLAIN, b"X-Pad: secret\r\n" * 4000, ImageUnavailable),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2500, ImageUnavailable),
    "chunk extension": (CHUNKED + b"5;", b"secret" * 10_000, ImageTruncated),
    "chunk size": (CHUNKED, b"0" * 65536, ImageTruncated),
    "chunks of one byte": (CHUNKED, b"1\r\nX\r\n" * 10_000, ImageUnavailable),
    "chunks with extensions": (CHUNKED, b"5;%s\r\nsecre\r\n" % (b"x" * 1000) * 60, ImageUnavailable),
    "trailers": (CHUNKED + WHOLE, b"X-Pad: secret\r\n" * 4000, ImageTruncated),
}


@pytest.mark.parametrize(("start", "more", "error"), FLOODS.values(), ids=FLOODS)
def test_flood_is_cut_off_soon(serve: Serve, start: bytes, more: bytes, error: type[DarkroomError]) -> None:
    server = serve({"/a.png": flood(start, more)})
    began = time.monotonic()
    failure(Downloader(replace(POLICY, timeout_s=600)), f"{server.url}/a.png?sig=secret", error)
    assert time.monotonic() - began < AT_ONCE_S


def test_header_bytes_are_counted_for_each_hop(serve: Serve) -> None:
    padding = b"HTTP/1.1 102 Processing\r\nX-Pad: %s\r\n\r\n" % (b"x" * 60_000)
    assert 3 * len(padding) < HEAD_BYTES < 6 * len(padding)
    hops = {f"/{n}": padding * 3 + redirect(f"/{n + 1}") for n in range(3)}
    server = serve({**hops, "/3": padding * 3 + reply(PNG)})
    fetched(Downloader(POLICY), f"{server.url}/0")
