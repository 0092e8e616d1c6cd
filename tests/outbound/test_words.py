"""What a user reads where a connection fails: the host and what happened, and no library's words."""

import errno
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import httpx
import pytest

from receiver.client import Darkroom
from receiver.client.http import Unreachable
from receiver.errors import DarkroomError
from receiver.gateways.client import GatewayClient
from receiver.outbound.proxy import open_client
from storage.archive.object_store import ObjectStore
from storage.errors import StorageError
from storage.network import failure

LIBRARY = re.compile(
    r"\[Errno|[a-z]Error\b|[a-z]Timeout\b|Exception|urllib3|httpx|httpcore|boto|Traceback|errno"
)


def gateway(url: str) -> None:
    with closing(open_client(ssl.create_default_context(), None)) as client:
        client.timeout = httpx.Timeout(1)
        GatewayClient(client, {}).send(httpx.Request("GET", f"{url}/x"))


def bucket(url: str) -> None:
    keys = {"region": "us-east-1", "access_key": "an-access-key", "secret_key": "a-secret-key"}
    ObjectStore.connect(bucket="pictures", endpoint=url, addressing="path", **keys).ping()  # type: ignore[arg-type]


def client(url: str) -> None:
    with Darkroom(url, timeout_s=1) as darkroom:
        darkroom.status()


WAYS: dict[str, Callable[[str], None]] = {"gateway": gateway, "bucket": bucket, "client": client}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def told(way: Callable[[str], None], url: str) -> str:
    with pytest.raises((DarkroomError, StorageError, Unreachable)) as caught:
        way(url)
    message = str(caught.value)
    assert url.partition("://")[2].partition(":")[0] in message
    assert LIBRARY.search(message) is None, message
    return message


@each_way
def test_a_port_without_a_program_is_told(way: Callable[[str], None]) -> None:
    assert "refuses the connection: nothing listens on that port" in told(way, "http://127.0.0.1:1")


@each_way
def test_an_unknown_name_is_told(way: Callable[[str], None]) -> None:
    assert re.search("is not known to DNS|DNS does not respond", told(way, "http://nowhere.invalid"))


@each_way
def test_a_port_without_tls_is_told(way: Callable[[str], None]) -> None:
    with talking(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert "does not speak TLS on that port" in told(way, f"https://127.0.0.1:{port}")


@each_way
@pytest.mark.parametrize("data", [b"", b"garbage\r\n\r\n"], ids=["nothing", "garbage"])
def test_an_answer_that_is_not_http_is_told(way: Callable[[str], None], data: bytes) -> None:
    with talking(data) as port:
        assert re.search("sent what is not HTTP|broke off", told(way, f"http://127.0.0.1:{port}"))


@pytest.mark.parametrize("way", [gateway, client])
def test_no_answer_in_time_is_told(way: Callable[[str], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert "did not respond in time" in told(way, f"http://127.0.0.1:{listener.getsockname()[1]}")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EHOSTUNREACH, "x"), "no route"),
        (OSError(errno.ECONNRESET, "x"), "broke off"),
        (OSError(errno.EMFILE, "x"), "ulimit"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "DNS does not respond"),
        (ssl.SSLError(1, "x"), "does not agree on a TLS version"),
        (OSError("x"), "closed the connection"),
        (ValueError("x"), "closed the connection"),
    ],
    ids=repr,
)
def test_errors_of_the_system_are_told(error: Exception, words: str) -> None:
    outer = RuntimeError("theirs")
    outer.__cause__ = error
    assert words in failure(outer)
    assert "theirs" not in failure(outer)


@contextmanager
def talking(data: bytes) -> Iterator[int]:
    """Run a server that sends this to everybody, whatever they say."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(data)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
