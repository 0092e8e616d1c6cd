"""What a download takes for an image and what it does not, against a server that lies."""

import hashlib
import socket
import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from receiver.download.downloader import Downloader, DownloadPolicy
from receiver.download.ssrf import parse_target
from receiver.errors import (
    DarkroomError,
    ImageExpired,
    ImageTooLarge,
    ImageTruncated,
    ImageUnavailable,
    NotAnImage,
    Unready,
)
from tests.support.raw_server import PNG, Script, Serve, picture, reply

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
        (ImageExpired, [400, 401, 403, 404, 410, 451]),
        (ImageUnavailable, [408, 425, 429, 500, 503, 204, 206, 302, 304]),
    ],
)
def test_status_tells_a_dead_link(serve: Serve, error: type[DarkroomError], statuses: list[int]) -> None:
    for status in statuses:
        server = serve({"/a.png": reply(status=f"{status} Told")})
        told = rf"^127\.0\.0\.1:{server.port}/a\.png returned HTTP {status}\.$"
        failure(Downloader(POLICY), f"{server.url}/a.png?sig=secret", error, told)


def reset(sock: socket.socket) -> None:
    sock.sendall(reply(PNG[:100], length=len(PNG)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNANNOUNCED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
LIES: dict[str, tuple[Script | bytes, type[DarkroomError]]] = {
    "length_too_long": (reply(PNG, length=len(PNG) + 1), ImageTruncated),
    "length_too_short": (reply(PNG, length=len(PNG) - 20), ImageTruncated),
    "no_bytes": (reply(b""), ImageTruncated),
    "reset_in_the_middle": (reset, ImageTruncated),
    "chunks_break_off": (CHUNKED + b"%x\r\n" % len(PNG) + PNG[:500], ImageTruncated),
    "chunks_are_garbage": (CHUNKED + b"zz\r\nsecret", ImageTruncated),
    "unannounced_and_cut": (UNANNOUNCED + PNG[:-30], ImageTruncated),
    "png_without_an_end": (reply(PNG[:-12]), ImageTruncated),
    "html": (reply(b"<html><script>secret</script></html>", Content_Type="image/png"), NotAnImage),
    "svg": (reply(b'<svg xmlns="http://www.w3.org/2000/svg"/>', Content_Type="image/png"), NotAnImage),
    "gif": (reply(picture("GIF"), Content_Type="image/png"), NotAnImage),
    "gzip": (reply(zlib.compress(PNG, wbits=31), Content_Encoding="gzip"), NotAnImage),
    "gzip_but_not_so": (reply(PNG, Content_Encoding="gzip"), NotAnImage),
    "no_http": (b"SSH-2.0-secret\r\n\r\n", ImageUnavailable),
    "two_lengths": (reply(PNG, Content_Length="5"), ImageUnavailable),
    "absurd_length": (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", ImageUnavailable),
    "endless_headers": (b"HTTP/1.1 200 OK\r\n" + b"X-Pad: secret\r\n" * 20_000, ImageUnavailable),
    "says_nothing": (b"", ImageUnavailable),
    "upgrade": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: secret\r\n\r\n", ImageUnavailable),
}


@pytest.mark.parametrize(("script", "error"), LIES.values(), ids=LIES)
def test_lie_is_found_out(serve: Serve, script: Script | bytes, error: type[DarkroomError]) -> None:
    server = serve({"/a.png": script})
    failure(Downloader(POLICY), f"{server.url}/a.png?sig=secret", error)


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
