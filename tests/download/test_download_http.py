"""Answers that are hardly HTTP, or HTTP at its oddest: what is taken for an image, and what is given up."""

import socket
import time
from dataclasses import replace

import pytest

from receiver.download.downloader import Downloader
from receiver.download.transport import HEAD_BYTES
from receiver.errors import DarkroomError, ImageTruncated, ImageUnavailable, NotAnImage
from tests.download.test_download import CHUNKED, POLICY, UNANNOUNCED, failure, fetched
from tests.support.raw_server import PNG, Script, Serve, redirect, reply
from tests.unit.test_media import FOREIGN, SMALL

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


REFUSED: dict[str, tuple[bytes, type[DarkroomError]]] = {
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
    "stacked encodings": (reply(PNG, Content_Encoding="identity, gzip"), NotAnImage),
    "brotli": (reply(PNG, Content_Encoding="br"), NotAnImage),
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
    "cut WebP": (UNANNOUNCED + SMALL["webp"][:-1], ImageTruncated),
    "cut JPEG": (UNANNOUNCED + SMALL["jpeg"][:-1], ImageTruncated),
    **{
        f"image behind {name}": (reply(head + PNG, Content_Type="image/png"), NotAnImage)
        for name, head in FOREIGN.items()
    },
}


@pytest.mark.parametrize(("answer", "error"), REFUSED.values(), ids=REFUSED)
def test_odd_answer_is_refused(serve: Serve, answer: bytes, error: type[DarkroomError]) -> None:
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
