"""What comes in on callback URLs: what is proven is kept, and nothing else leaves a trace."""

import gzip
import hashlib
import hmac
import json
import socket
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from receiver.callbacks.tokens import CallbackTokens
from storage.models import Status
from tests.support.live import IMAGEN, ULTRA, Live, Start
from tests.support.processes import until

KEY = b"afk_sandbox"


def signed(body: bytes, key: bytes = KEY) -> dict[str, str]:
    digest = hmac.new(hashlib.sha256(key).digest(), body, hashlib.sha256).hexdigest()
    return {"content-type": "application/json", "x-webhook-signature": f"sha256={digest}"}


def completed(theirs: str, url: str = "https://cdn.example/1.png") -> bytes:
    return json.dumps(
        {"event": "completed", "jobId": theirs, "status": "COMPLETED", "result": {"images": [url]}}
    ).encode()


@pytest.fixture(scope="module")
def idle(start_shared: Start) -> Live:
    """A service whose worker does nothing, so that jobs stay where a test puts them."""
    return start_shared(work=False, callback_bytes=4096)


Post = Callable[..., httpx.Response]


def head(url: str, body: bytes, headers: dict[str, str], *, version: str = "1.1") -> bytes:
    """The head of a request that sends a callback."""
    to = urlsplit(url)
    given = {"host": to.netloc, "content-length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"POST {to.path} HTTP/{version}\r\n{lines}\r\n".encode()


def connect(url: str) -> socket.socket:
    to = urlsplit(url)
    assert to.hostname is not None
    return socket.create_connection((to.hostname, to.port or 80), timeout=10)


def answers_on(connection: socket.socket, number: int, got: bytes = b"") -> list[httpx.Response]:
    """The next answers on a connection, of which some is read already."""
    found: list[httpx.Response] = []
    while len(found) < number:
        told, ended, body = got.partition(b"\r\n\r\n")
        first, *lines = told.decode().split("\r\n")
        headers = httpx.Headers([(line.partition(": ")[0], line.partition(": ")[2]) for line in lines])
        if ended and len(body) >= (length := int(headers["content-length"])):
            found.append(httpx.Response(int(first[9:12]), headers=headers, content=body[:length]))
            got = body[length:]
            continue
        piece = connection.recv(65536)
        assert piece, f"it was closed after {got!r}"
        got += piece
    assert got == b""
    return found


def post_whole(url: str, *, content: bytes, headers: dict[str, str]) -> httpx.Response:
    """Send a request in one piece, as most gateways and proxies do."""
    with connect(url) as connection:
        connection.sendall(head(url, content, headers) + content)
        return answers_on(connection, 1)[0]


def post_when_asked(url: str, *, content: bytes, headers: dict[str, str]) -> httpx.Response:
    """Send the body once the service asks for it, so that it has to wait for that."""
    with connect(url) as connection:
        connection.sendall(head(url, content, headers | {"expect": "100-continue"}))
        got = connection.recv(65536)
        if got == b"HTTP/1.1 100 Continue\r\n\r\n":
            connection.sendall(content)
            got = b""
        return answers_on(connection, 1, got)[0]


in_both_ways = pytest.mark.parametrize("post", [post_whole, post_when_asked])
"""Requests that are here whole are served without a task: see `http.middleware.AtOnce`."""


def running_job(live: Live, theirs: str) -> str:
    """A job that its gateway is said to have taken."""
    job_id = str(live.submit(IMAGEN)["id"])
    ledger = live.service.resources.ledger
    job = next(job for job in ledger.claim("test", 100) if job.id == job_id)
    job = ledger.move(job, Status.SUBMITTING, "test", keep_lease=True)
    ledger.move(job, Status.RUNNING, "test", gateway_job_id=theirs, due_in_ms=3_600_000)
    return job_id


def state(live: Live) -> tuple[Any, ...]:
    """Everything that a refused callback must leave as it was."""
    jobs = live.http.get("/v1/jobs", params={"limit": 500}).json()["jobs"]
    deliveries = [live.service.resources.ledger.deliveries(job["id"]) for job in jobs]
    return jobs, deliveries, live.keys()


@in_both_ways
def test_a_proven_callback_is_accepted_once(idle: Live, post: Post) -> None:
    theirs = f"theirs-once-{post.__name__}"
    job_id = running_job(idle, theirs)
    url, body = idle.callback_url(job_id), completed(theirs)
    first = post(url, content=body, headers=signed(body))
    again = post(url, content=body, headers=signed(body))
    assert (first.status_code, first.json()) == (200, {"status": "accepted"})
    assert (again.status_code, again.json()) == (200, {"status": "duplicate"})
    (delivery,) = idle.service.resources.ledger.deliveries(job_id)
    assert delivery.body == body
    assert delivery.body_sha256 == hashlib.sha256(body).hexdigest()
    assert delivery.signature == "valid"


def test_all_bad_tokens_get_the_same_answer(idle: Live) -> None:
    job_id = running_job(idle, "theirs-uniform")
    good = idle.callback_url(job_id)
    token = good.rpartition("/")[2]
    clock = lambda: 1_000_000_000_000  # noqa: E731 - a day in 2001
    secret = (idle.settings.data_dir / "secret-key").read_text().strip()
    expired = CallbackTokens([secret], max_age_s=60, clock=clock).make("apiframe", job_id)
    other_key = CallbackTokens(["another-key-of-ours"], max_age_s=60, clock=clock).make("apiframe", job_id)
    changed = token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]
    before, body = state(idle), completed("theirs-uniform")
    forged = ["", "x", "a.b.c", "%00", "é", "." * 250, "a" * 4000, "eyJ9.aaaa.bbbb/more"]
    bad = [f"apiframe/{one}" for one in (expired, other_key, changed, *forged)]
    answers = [
        httpx.post(f"{idle.url}/callbacks/{one}", content=body, headers=signed(body))
        for one in (*bad, f"api-in-one/{token}", f"nobody/{token}", "apiframe/..%2f..%2fv1%2fjobs")
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["code"] == "bad_token"
    assert state(idle) == before


BODY = completed("theirs-wrong")


@pytest.fixture(scope="module")
def wrong(idle: Live) -> str:
    return idle.callback_url(running_job(idle, "theirs-wrong"))


@pytest.mark.parametrize(
    ("content", "changed", "status", "code"),
    [
        (BODY, {"x-webhook-signature": "sha256=" + "0" * 64}, 401, "bad_signature"),
        (BODY, {"x-webhook-signature": "sha256=,v1 zz=="}, 401, "bad_signature"),
        (BODY, signed(BODY, b"afk_stolen"), 401, "bad_signature"),
        (b"{" + BODY, {}, 400, "malformed_callback"),
        (b'["completed"]', {}, 400, "malformed_callback"),
        (completed("another-job"), {}, 409, "job_mismatch"),
        (BODY + b" " * 5000, {}, 413, "body_too_large"),
    ],
)
@pytest.mark.parametrize("sent", ["whole", "when asked", "chunked"])
def test_whatever_is_wrong_changes_nothing(
    idle: Live, wrong: str, sent: str, content: bytes, changed: dict[str, str], status: int, code: str
) -> None:
    before = state(idle)
    headers = {**signed(content), **changed}
    if sent == "chunked":
        answer = httpx.post(wrong, content=iter([content[:10], content[10:]]), headers=headers)
    else:
        post = post_whole if sent == "whole" else post_when_asked
        answer = post(wrong, content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert state(idle) == before


OLD, NEW = "01000000-0000-7000-8000-000000000000", "0fffffff-0000-7000-8000-000000000000"


@in_both_ways
@pytest.mark.parametrize(
    ("job_id", "status", "code"), [(OLD, 404, "unknown_job"), (NEW, 503, "ledger_incomplete")]
)
def test_a_token_for_a_job_that_is_gone_is_told(
    idle: Live, post: Post, job_id: str, status: int, code: str
) -> None:
    """One that is later than all jobs of the ledger was lost with it, and its gateway shall come again."""
    running_job(idle, f"theirs-{code}-{post.__name__}")
    tokens = idle.service.resources.tokens
    url = f"{idle.url}/callbacks/apiframe/{tokens.make('apiframe', job_id)}"
    body = completed("theirs")
    answer = post(url, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_changes_but_by_post(idle: Live, method: str) -> None:
    answer = httpx.request(method, idle.callback_url(running_job(idle, f"theirs-{method}")))
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize("behind", ["/", "//", "%2F", "?event=completed", "/?a=b"])
def test_what_frameworks_put_behind_a_url_is_let_be(idle: Live, behind: str) -> None:
    theirs = f"theirs-behind-{behind}"
    url, body = idle.callback_url(running_job(idle, theirs)) + behind, completed(theirs)
    assert httpx.get(url).status_code == 200
    answer = httpx.post(url, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_sender_may_ask_first(idle: Live, method: str) -> None:
    job_id = running_job(idle, f"theirs-asks-{method}")
    before, url = state(idle), idle.callback_url(job_id)
    answer = httpx.request(method, url)
    assert (answer.status_code, answer.text) == (200, '{"status":"ready"}' if method == "GET" else "")
    refused = [
        httpx.request(method, bad) for bad in (url + "x", url + "/x", url.replace("apiframe", "api-in-one"))
    ]
    assert {answer.status_code for answer in refused} == {401}
    assert state(idle) == before


def deflated(body: bytes, wbits: int) -> bytes:
    stream = zlib.compressobj(wbits=wbits)
    return stream.compress(body) + stream.flush()


ENCODED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "X-GZip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate, identity": lambda body: deflated(body, -15),
    "gzip,gzip": lambda body: gzip.compress(gzip.compress(body)),
    "gzip,": lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:]),
    "gzip, identity": lambda body: body,
    "identity": lambda body: body,
    "": lambda body: body,
}


@pytest.mark.parametrize("over", ["sent", "plain"])
@pytest.mark.parametrize("encoding", ENCODED)
def test_an_encoded_body_is_decoded(idle: Live, encoding: str, over: str) -> None:
    theirs = f"theirs-{encoding}-{over}"
    url, body = idle.callback_url(job_id := running_job(idle, theirs)), completed(theirs)
    sent = ENCODED[encoding](body)
    headers = signed(sent if over == "sent" else body) | {"content-encoding": encoding}
    assert httpx.post(url, content=sent, headers=headers).json() == {"status": "accepted"}
    again = signed(body) if over == "sent" else headers
    assert httpx.post(url, content=body, headers=again).json() == {"status": "duplicate"}
    (delivery,) = idle.service.resources.ledger.deliveries(job_id)
    assert (delivery.body, delivery.signature) == (body, "valid")
    assert delivery.headers["content-encoding"] == encoding


def test_an_encoded_body_of_an_unsigned_gateway_is_read(idle: Live) -> None:
    job_id = str(idle.submit(ULTRA)["id"])
    body = json.dumps({"task_id": "theirs-zipped", "status": "processing"}).encode()
    headers = {"content-encoding": "gzip"}
    answer = httpx.post(idle.callback_url(job_id), content=gzip.compress(body), headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})
    (delivery,) = idle.service.resources.ledger.deliveries(job_id)
    assert json.loads(delivery.body) == json.loads(body)


def zipped(body: bytes) -> bytes:
    """Compress in the same way at any time: the tests' names have these bytes in them."""
    return gzip.compress(body, mtime=0)


@pytest.mark.parametrize(
    ("encoding", "body", "status", "code"),
    [
        ("br", b"{}", 400, "malformed_callback"),
        ("zstd, gzip", zipped(b"{}"), 400, "malformed_callback"),
        ("gzip", zipped(b"{}")[:-4], 400, "malformed_callback"),
        ("gzip", b"not gzip", 400, "malformed_callback"),
        ("gzip", zipped(b"{}") + b"garbage", 400, "malformed_callback"),
        ("gzip", zipped(b"") * 40 + zipped(b"{}"), 400, "malformed_callback"),
        ("gzip," * 9 + "gzip", zipped(b"{}"), 400, "malformed_callback"),
        ("gzip", zipped(b" " * 4097), 413, "body_too_large"),
        ("gzip, gzip", zipped(zipped(b"{" + b" " * 60_000_000)), 413, "body_too_large"),
        ("deflate", zlib.compress(b" " * 3_000_000), 413, "body_too_large"),
        ("gzip", zipped(completed("another")), 401, "bad_signature"),
    ],
)
def test_a_wrongly_encoded_body_changes_nothing(
    idle: Live, encoding: str, body: bytes, status: int, code: str
) -> None:
    url = idle.callback_url(running_job(idle, f"theirs-wrong-{encoding}-{len(body)}"))
    before = state(idle)
    headers = {"content-encoding": encoding, "x-webhook-signature": f"sha256={'0' * 64}"}
    answer = httpx.post(url, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert state(idle) == before


def test_small_encoded_callbacks_need_no_turn(idle: Live) -> None:
    url = idle.callback_url(running_job(idle, "theirs-at-once"))
    body = completed("theirs-at-once")
    headers = signed(body) | {"content-encoding": "gzip"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: httpx.post(url, content=gzip.compress(body), headers=headers), range(16))
        )
    assert {answer.status_code for answer in answers} == {200}


def test_a_previous_api_key_still_verifies(start: Start) -> None:
    live = start(work=False, apiframe={"api_key": "afk_new", "previous_api_keys": ["afk_old"]})
    url, body = live.callback_url(running_job(live, "theirs")), completed("theirs")
    assert httpx.post(url, content=body, headers=signed(body, b"afk_stolen")).status_code == 401
    assert httpx.post(url, content=body, headers=signed(body, b"afk_old")).status_code == 200


def test_secret_keys_rotate_without_losing_a_callback(start: Start) -> None:
    old = start(work=False, secret_keys=["the-old-secret-key"])
    job_id = running_job(old, "theirs")
    token = old.callback_url(job_id).rpartition("/")[2]
    both = start(work=False, secret_keys=["the-old-secret-key", "the-new-secret-key"])
    body = completed("theirs")
    answer = httpx.post(f"{both.url}/callbacks/apiframe/{token}", content=body, headers=signed(body))
    assert answer.status_code == 200
    assert both.callback_url(job_id).rpartition("/")[2] != token


def test_an_unsigned_callback_is_recorded_as_such(idle: Live) -> None:
    job_id = str(idle.submit(ULTRA)["id"])
    body = json.dumps({"code": 200, "data": {"task_id": "n1_x", "status": "completed"}}).encode()
    assert httpx.post(idle.callback_url(job_id), content=body).status_code == 200
    assert idle.service.resources.ledger.deliveries(job_id)[0].signature == "unsupported"


def test_echoed_keys_and_tokens_are_not_kept(idle: Live) -> None:
    job_id = running_job(idle, "theirs-echo")
    url = idle.callback_url(job_id)
    token = url.rpartition("/")[2]
    link = "https://cdn.example/1.png?sig=to-be-fetched"
    echo = {
        **json.loads(completed("theirs-echo", link)),
        "apiKey": {"webhookCallbackApiKey": "theirs-12345"},
        "request": {"webhookUrl": url, "key": "Zk3v9qLm2x7Rt5Yb1N", "authorization": "Bearer afk_sandbox"},
        "log": f"sent to {url.replace('/', '%2F')} with afk%5Fsandbox",
    }
    body = json.dumps(echo).replace("/", "\\/").encode()
    headers = {**signed(body), "x-webhook-note": f"to {url}", "x-webhook-secret": "afk_sandbox"}
    assert httpx.post(url, content=body, headers=headers).status_code == 200
    (delivery,) = idle.service.resources.ledger.deliveries(job_id)
    kept = repr(delivery)
    for secret in (token, token.split(".")[0], "theirs-12345", "Zk3v9qLm2x7Rt5Yb1N", "sandbox"):
        assert secret not in kept, secret
    assert delivery.body_sha256 == hashlib.sha256(body).hexdigest()
    read = json.loads(delivery.body)
    assert read["result"] == {"images": [link]}, "which is still to be fetched"


def counted(live: Live) -> float:
    """How many requests with POST there were but for submissions."""
    shown = live.service.metrics.page().decode().splitlines()
    ours = [one for one in shown if one.startswith("darkroom_http_requests_total{") and "POST" in one]
    return sum(float(one.rpartition(" ")[2]) for one in ours if "/v1/jobs" not in one)


@pytest.mark.parametrize("path", ["/callbacks/apiframe/{}", "/Callbacks/apiframe/{}", "/callbacks//{}"])
def test_the_log_has_no_callback_token(idle: Live, capfd: pytest.CaptureFixture[str], path: str) -> None:
    token = idle.callback_url(running_job(idle, f"theirs-{path}")).rpartition("/")[2]
    before = counted(idle)
    httpx.post(idle.url + path.format(token), content=b"{}", headers=signed(b"{}"))
    until(lambda: counted(idle) > before)  # the line is written after the answer, and before it is counted
    seen = "".join(capfd.readouterr())
    assert "[token]" in seen
    assert token not in seen
    assert token.split(".")[0] not in seen


@in_both_ways
def test_a_callback_has_the_headers_and_the_count_of_every_request(idle: Live, post: Post) -> None:
    theirs = f"theirs-headers-{post.__name__}"
    url, body = idle.callback_url(running_job(idle, theirs)), completed(theirs)
    other = httpx.get(f"{idle.url}/healthz", headers={"x-request-id": "mine"})
    assert {"date", "x-request-id", "x-content-type-options"} <= other.headers.keys()
    for answer in (
        post(url, content=body, headers=signed(body) | {"x-request-id": "mine"}),
        post(url, content=b"{", headers={"x-request-id": "mine"}),
        post(f"{url}x", content=b"{", headers={"x-request-id": "mine"}),
    ):
        assert "date" in answer.headers
        same = other.headers.keys() - {"content-type", "content-length", "date"}
        assert {name: answer.headers.get(name) for name in same} == {
            name: other.headers[name] for name in same
        }
        assert answer.headers["content-type"].startswith("application/")
    shown = httpx.get(f"{idle.url}/metrics").text
    count = 'darkroom_http_requests_total{method="POST",route="/callbacks/{gateway}/{token}",status="%d"}'
    assert all(count % status in shown for status in (200, 400, 401))


def test_a_body_that_comes_in_pieces_is_read_whole(idle: Live) -> None:
    url, body = idle.callback_url(running_job(idle, "theirs-pieces")), completed("theirs-pieces")
    with connect(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (head(url, body, signed(body)), body[:9], body[9:40], body[40:]):
            connection.sendall(piece)
            threading.Event().wait(0.02)
        assert answers_on(connection, 1)[0].status_code == 200


def test_callbacks_behind_one_another_are_answered_in_order(idle: Live) -> None:
    """On one connection, in one piece: with another request between, and one that is refused."""
    url, body = idle.callback_url(running_job(idle, "theirs-in-order")), completed("theirs-in-order")
    callback = head(url, body, signed(body)) + body
    refused = head(f"{url}x", body, signed(body)) + body
    other = f"GET /healthz HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\n\r\n".encode()
    with connect(url) as connection:
        connection.sendall(callback + other + callback + refused + callback)
        answers = answers_on(connection, 5)
    assert [answer.status_code for answer in answers] == [200, 200, 200, 401, 200]
    told = [answers[n].json()["status"] for n in (0, 2, 4)]
    assert told == ["accepted", "duplicate", "duplicate"]


@pytest.mark.parametrize(("version", "said"), [("1.1", "close"), ("1.0", "")])
def test_a_connection_that_the_sender_will_not_use_again_is_closed(
    idle: Live, version: str, said: str
) -> None:
    theirs = f"theirs-closed-{version}"
    url, body = idle.callback_url(running_job(idle, theirs)), completed(theirs)
    headers = signed(body) | ({"connection": said} if said else {})
    with connect(url) as connection:
        connection.sendall(head(url, body, headers, version=version) + body)
        (answer,) = answers_on(connection, 1)
        assert (answer.json(), answer.headers["connection"]) == ({"status": "accepted"}, "close")
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("step", "then"), [("_verified", "accepted"), ("_note_recorded", "duplicate")], ids=["before", "after"]
)
def test_a_fault_of_ours_is_an_error_and_ends_nothing(
    idle: Live, step: str, then: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before a callback is on disk, or after."""
    url, body = idle.callback_url(running_job(idle, f"theirs-{step}")), completed(f"theirs-{step}")

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    with connect(url) as connection:
        monkeypatch.setattr(idle.service.callbacks, step, fails)
        connection.sendall(head(url, body, signed(body) | {"x-request-id": "faulty"}) + body)
        (answer,) = answers_on(connection, 1)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        monkeypatch.undo()
        connection.sendall(head(url, body, signed(body)) + body)
        assert answers_on(connection, 1)[0].json() == {"status": then}
    seen = "".join(capfd.readouterr())
    assert "ZeroDivisionError" in seen
    assert "faulty" in seen


def test_more_than_a_minute_allows_is_refused_either_way(start: Start) -> None:
    live = start(work=False, limits={"callback_token": 3})
    url, body = live.callback_url(running_job(live, "theirs")), completed("theirs")
    posts: list[Post] = [post_when_asked, post_whole, post_whole, post_whole, post_when_asked]
    answers = [post(url, content=body, headers=signed(body)) for post in posts]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers[3:])
