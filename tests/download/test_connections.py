"""When a connection to an image host is used for the next image, and when it must not be."""

import socket
import ssl
from dataclasses import replace

import pytest

from receiver.download import connections
from receiver.download.downloader import Downloader
from receiver.errors import ForbiddenAddress, ImageExpired, ImageTruncated
from tests.download.test_download import POLICY, failure, fetched
from tests.download.test_transport import names
from tests.support.raw_server import PNG, TLS, Script, Serve, redirect, reply

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(PNG) + PNG + b"\r\n0\r\n\r\n"


def each_time(answer: bytes) -> Script:
    """Give the same answer to each request on a connection, until the other side is gone."""

    def script(sock: socket.socket) -> None:
        while True:
            sock.sendall(answer)
            if not sock.recv(65536):
                return

    return script


@pytest.mark.parametrize("answer", [reply(PNG), CHUNKED])
def test_next_image_comes_on_the_same_connection(serve: Serve, answer: bytes) -> None:
    server = serve({"/a.png": each_time(answer)})
    downloader = Downloader(POLICY)
    for _ in range(3):
        fetched(downloader, f"{server.url}/a.png")
    downloader.close()
    assert server.connections == 1


def test_tls_is_kept_for_its_own_name_only(serve: Serve) -> None:
    server = serve({"/a.png": each_time(reply(PNG))}, tls=True)
    resolve = names({name: ["127.0.0.1"] for name in ("images.example", "cdn.example")})
    context = ssl.create_default_context(cafile=TLS / "ca.pem")
    downloader = Downloader(POLICY, resolve=resolve, ssl_context=context)
    for name in ("images.example", "cdn.example", "images.example", "cdn.example"):
        fetched(downloader, f"https://{name}:{server.port}/a.png")
    downloader.close()
    assert server.names == ["images.example", "cdn.example"]


def test_name_that_leads_elsewhere_gets_another_connection(serve: Serve) -> None:
    first = serve({"/a.png": each_time(reply(PNG))})
    second = serve({"/a.png": each_time(reply(PNG))}, at=("127.0.0.2", first.port))
    answers = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.3", "127.0.0.1"], ["10.0.0.1", "127.0.0.1"]])
    downloader = Downloader(POLICY, resolve=lambda _host: next(answers))
    url = f"http://images.example:{first.port}/a.png"
    for _ in range(3):
        fetched(downloader, url)
    assert (first.connections, second.connections) == (1, 1)
    # One of its addresses is forbidden now: the connection to the other one is no way around that.
    failure(downloader, url, ForbiddenAddress)
    downloader.close()


def closing_at_once(sock: socket.socket) -> None:
    sock.sendall(reply(PNG))


def closing_at_the_next_request(sock: socket.socket) -> None:
    sock.sendall(reply(PNG))
    sock.recv(65536)


def saying_more(sock: socket.socket) -> None:
    each_time(reply(PNG) + b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nX")(sock)


ENDING: dict[str, Script] = {
    "closed by the server": closing_at_once,
    "closed as the next request comes": closing_at_the_next_request,
    "more than was asked for": saying_more,
    "said to be closed": each_time(reply(PNG, Connection="close")),
    "HTTP/1.0": each_time(reply(PNG).replace(b"HTTP/1.1", b"HTTP/1.0")),
}


@pytest.mark.parametrize("script", ENDING.values(), ids=ENDING)
def test_connection_that_ended_is_made_anew(serve: Serve, script: Script) -> None:
    server = serve({"/a.png": script})
    downloader = Downloader(POLICY)
    for _ in range(2):
        fetched(downloader, f"{server.url}/a.png")
    downloader.close()
    assert server.connections == 2


FAILING: dict[str, tuple[bytes, type[Exception]]] = {
    "refused": (reply(b"gone", status="404 Not Found"), ImageExpired),
    "redirected": (redirect("/gone"), ImageExpired),
    "cut off": (reply(PNG, length=len(PNG) + 1), ImageTruncated),
}


@pytest.mark.parametrize(("answer", "error"), FAILING.values(), ids=FAILING)
def test_connection_with_a_rest_is_not_used_again(
    serve: Serve, answer: bytes, error: type[ImageExpired | ImageTruncated]
) -> None:
    """What was not read of one answer must not be taken for the next one."""
    gone = reply(b"gone", status="404 Not Found")
    server = serve({"/a.png": answer, "/b.png": each_time(reply(PNG)), "/gone": gone})
    downloader = Downloader(replace(POLICY, drip_seconds=2))
    failure(downloader, f"{server.url}/a.png", error)
    before = server.connections
    fetched(downloader, f"{server.url}/b.png")
    downloader.close()
    assert server.connections == before + 1


def test_few_connections_are_kept_and_not_for_long(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "KEPT", 2)
    now = [0.0]
    servers = [serve({"/a.png": each_time(reply(PNG))}) for _ in range(3)]
    downloader = Downloader(POLICY, monotonic=lambda: now[0])

    def rounds(*order: int) -> list[int]:
        for n in order:
            fetched(downloader, f"{servers[n].url}/a.png")
        return [server.connections for server in servers]

    assert rounds(0, 1, 2) == [1, 1, 1]
    assert rounds(2, 1, 0) == [2, 1, 1]
    now[0] += connections.KEPT_S + 1
    assert rounds(0, 1) == [3, 2, 1]
    downloader.close()
