"""What one connection may cost: bytes by bytes against the running service."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import psutil
import pytest

from receiver.http.connection_limits import AFTER_RESPONSE_BYTES, HEAD_BYTES, HEADERS
from receiver.http.middleware import SAFE_HEADERS
from tests.callbacks.test_callbacks import running_job
from tests.support.live import ULTRA, Live, Start, started
from tests.support.running import ROOT

GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"
BAD = b"POST /callbacks/apiframe/x.y.z HTTP/1.1\r\nhost: x\r\n"
HEAD_S = 0.6
PIECE = b"x" * 65536


@pytest.fixture(scope="module")
def target(s3_server: Any, sandbox: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    limits = {"head_timeout": HEAD_S, "connections": 20, "bad_tokens": 0}
    with started(
        s3_server, tmp_path_factory.mktemp("conn"), sandbox=sandbox, work=False, limits=limits
    ) as running:
        yield running


@contextmanager
def connected(target: Live) -> Iterator[socket.socket]:
    host, port = target.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        yield connection


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes; it must do so within the socket's ten seconds."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def pour(connection: socket.socket, piece: bytes, most: int) -> int:
    """Send a piece again and again until the other side has had enough; answers how many bytes went out."""
    sent = 0
    try:
        while sent < most:
            connection.sendall(piece)
            sent += len(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return sent


@pytest.mark.parametrize("begun", [b"", b"G", GET, GET + b"x-a: b"], ids=["nothing", "G", "lines", "half"])
def test_a_head_that_does_not_come_is_given_up(target: Live, begun: bytes) -> None:
    with connected(target) as connection:
        began = time.monotonic()
        connection.sendall(begun)
        assert everything(connection) == b""
        assert HEAD_S * 0.8 < time.monotonic() - began < HEAD_S + 3


def test_a_second_head_that_drips_is_given_up_too(target: Live) -> None:
    with connected(target) as connection:
        connection.sendall(GET + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        assert drip(connection, GET) < len(GET)
        assert time.monotonic() - began < HEAD_S + 3


def drip(connection: socket.socket, text: bytes) -> int:
    """Send a byte every fifth of a second until the other side closes; answers how many went out."""
    connection.settimeout(0.2)
    for sent, byte in enumerate(text):
        try:
            connection.sendall(bytes([byte]))
            if connection.recv(100) == b"":
                return sent
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            return sent
    return len(text)


@pytest.mark.parametrize(
    "head",
    [GET + b"x-long: " + b"a" * HEAD_BYTES * 2, GET + b"x: y\r\n" * (HEADERS + 5) + b"\r\n"],
    ids=["bytes", "lines"],
)
def test_a_head_that_is_too_large_is_refused(target: Live, head: bytes) -> None:
    with connected(target) as connection:
        connection.sendall(head)
        # The rest of it may reset the connection before the response is read.
        assert everything(connection)[:13] in {b"HTTP/1.1 400 ", b""}


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /" + b"a" * 100,
        GET + b"x-long: ",
        BAD + b"transfer-encoding: chunked\r\n\r\n1;" + b"a" * 100,
        BAD + b"transfer-encoding: chunked\r\n\r\n0\r\nx-long: ",
    ],
    ids=["target", "header", "chunk extension", "trailer"],
)
def test_nothing_around_a_body_may_go_on_for_ever(target: Live, begun: bytes) -> None:
    with connected(target) as connection:
        connection.sendall(begun)
        assert pour(connection, PIECE, 20 * AFTER_RESPONSE_BYTES) < 3 * AFTER_RESPONSE_BYTES


@pytest.mark.parametrize(
    "framing", [b"content-length: 99999999999\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n"]
)
def test_a_refused_body_is_not_read_for_ever(target: Live, framing: bytes) -> None:
    chunk = PIECE if b"length" in framing else b"10000\r\n" + PIECE + b"\r\n"
    with connected(target) as connection:
        connection.sendall(BAD + framing)
        assert connection.recv(65536).startswith(b"HTTP/1.1 401") or b"length" in framing
        assert pour(connection, chunk, 20 * AFTER_RESPONSE_BYTES) < 3 * AFTER_RESPONSE_BYTES


def test_a_refused_body_that_ends_keeps_the_connection(target: Live) -> None:
    url = target.callback_url(running_job(target, "theirs-over"))
    size = target.settings.callbacks.max_bytes + 1
    head = f"POST /{url.split('/', 3)[3]} HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode()
    with connected(target) as connection:
        connection.sendall(head)
        connection.sendall(b" " * size)
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413")
        connection.sendall(GET + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_few_requests_may_be_sent_ahead(target: Live) -> None:
    with connected(target) as connection:
        connection.sendall((GET + b"\r\n") * 5)
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 5:
            answers += connection.recv(65536)
    with connected(target) as connection:
        connection.sendall((GET + b"\r\n") * 5000)
        assert everything(connection).count(b"HTTP/1.1 200") < 20


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", GET + b"a\x00b: c\r\n\r\n",
        BAD + b"content-length: -1\r\n\r\n", BAD + b"content-length: 99999999999999999999999\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http_is_refused(target: Live, garbage: bytes) -> None:
    with connected(target) as connection:
        connection.sendall(garbage)
        assert everything(connection).startswith(b"HTTP/1.1 400 ")
    assert target.http.get("/healthz").status_code == 200, "and the next one is served"


def test_no_refusal_is_taken_for_another_response(target: Live) -> None:
    """A valid request that waits, and behind it garbage: the connection only closes."""
    job = running_job(target, "theirs-behind")
    held = f"GET /v1/jobs/{job}?wait=5 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
    with connected(target) as connection:
        connection.sendall(held + b"GET\r\n\r\n")
        assert everything(connection) == b""


@pytest.mark.parametrize("host", ["[", "]", "a b", "[::1", "x:99999999", "\xff", "%00", "a/../b", "@", ""])
def test_no_host_header_breaks_it(target: Live, host: str) -> None:
    with connected(target) as connection:
        connection.sendall(b"GET /v1/status HTTP/1.1\r\nhost: " + host.encode("latin-1") + b"\r\n\r\n")
        assert connection.recv(65536)[:10] in {b"HTTP/1.1 2", b"HTTP/1.1 4"}


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
def test_an_upgrade_is_not_made(target: Live, upgrade: bytes) -> None:
    with connected(target) as connection:
        connection.sendall(GET + b"connection: upgrade\r\nupgrade: " + upgrade + b"\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("begun", [b"", GET], ids=["idle", "slow head"])
def test_idle_connections_make_room_for_requests(start: Start, begun: bytes) -> None:
    live = start(work=False, limits={"connections": 20})
    url = live.callback_url(running_job(live, "theirs-room"))
    head = f"POST /{url.split('/', 3)[3]} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n".encode()
    with ExitStack() as stack:
        working = stack.enter_context(connected(live))
        working.sendall(head)
        others = []
        for _ in range(60):
            others.append(stack.enter_context(connected(live)))
            others[-1].sendall(begun)
            assert httpx.get(f"{live.url}/healthz").status_code == 200
        for other in others[:15]:
            assert everything(other) == b"", "those that have waited longest are closed"
        working.sendall(b"{}")
        assert working.recv(65536).startswith(b"HTTP/1.1 400"), "a request in hand is not given up"


def test_an_answer_that_nobody_reads_is_given_up(target: Live, capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(60):
        padding = {"padding": "x" * 60_000}
        target.submit(ULTRA, prompt=f"unread {number}", params=padding)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        host, port = target.url.removeprefix("http://").split(":")
        connection.connect((host, int(port)))
        connection.sendall(b"GET /v1/jobs?limit=60 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 4)
        port = connection.getsockname()[1]

        def is_open() -> bool:
            return any(getattr(one.raddr, "port", None) == port for one in psutil.Process().net_connections())

        began = time.monotonic()
        # Nothing to wait on: what it does is seen only in the list of open sockets.
        for there in (True, False):
            while is_open() is not there:
                assert time.monotonic() - began < HEAD_S + 8
                threading.Event().wait(0.01)
        assert time.monotonic() - began > HEAD_S * 0.8
        assert len(everything(connection)) < 4 * 3_600_000, "the rest of the answers never came"
    assert "request failed" not in "".join(capfd.readouterr())


def test_descriptors_limit_the_connections() -> None:
    for limits, most in (((256, 500), 150), ((300, 100_000), 2000), ((50_000, 50_000), 2000), ((64, 64), 1)):
        program = (
            "import resource; from receiver.http.connection_limits import allowed\n"
            f"resource.setrlimit(resource.RLIMIT_NOFILE, {limits})\n"
            "print(allowed(2000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if "ValueError" in done.stderr:
            continue  # this machine does not let anybody have so many
        assert done.stdout.split()[0] == str(most), done.stdout + done.stderr


def test_every_answer_carries_safe_headers(target: Live) -> None:
    assert SAFE_HEADERS["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in SAFE_HEADERS["content-security-policy"]
    for method, path, status in (
        ("GET", "/healthz", 200),
        ("GET", "/v1/jobs", 200),
        ("POST", "/callbacks/apiframe/x", 401),
        ("PUT", "/callbacks/apiframe/x", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/v1/jobs/nothing", 404),
        ("POST", "/v1/jobs", 422),
    ):
        answer = target.http.request(method, path)
        assert answer.status_code == status
        assert {name: answer.headers[name] for name in SAFE_HEADERS} == SAFE_HEADERS
        assert answer.headers["x-request-id"]
        assert "server" not in answer.headers
