"""`deploy/nginx.conf` and `deploy/Caddyfile`, run by the real programs before a real Darkroom."""

import gzip
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from receiver.api.query_params import MAX_WAIT_S
from receiver.settings import CallbackSettings, DownloadSettings
from tests.callbacks.test_callbacks import completed, running_job, signed
from tests.support.live import Live, Start
from tests.support.processes import nobody
from tests.support.proxies import DEPLOY, INTERNAL, PROGRAMS, PUBLIC, Front, before
from tests.support.recorder import CallbackReceiver

TOKEN = "a-token-of-the-tests"
BEARER = {"authorization": f"Bearer {TOKEN}"}
STRANGER = "203.0.113.9"


@dataclass(frozen=True)
class Fronted:
    """A service whose worker does nothing, behind a proxy."""

    name: str
    live: Live
    front: Front


@pytest.fixture(scope="module", params=PROGRAMS)
def fronted(
    request: pytest.FixtureRequest, start_shared: Start, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fronted]:
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    settings = {"api_tokens": [f"tests:admin:{TOKEN}"], "trusted_proxies": ["127.0.0.1"]}
    live = start_shared(folder / "data", work=False, **settings)
    live.http.headers.update(BEARER)
    with before(name, folder, urlsplit(live.url).port or 0) as front:
        yield Fronted(name, live, front)


def path_of(live: Live, job_id: str) -> str:
    return urlsplit(live.callback_url(job_id)).path


def test_a_signed_callback_comes_through_byte_for_byte(fronted: Fronted) -> None:
    live, front = fronted.live, fronted.front
    job_id = running_job(live, "theirs-through")
    # Whoever reads and writes JSON anew would take out the spaces, and with them the signature.
    body = b"  " + completed("theirs-through").replace(b": ", b" :\t\r\n ") + b"\n"
    answer = front.ask("POST", PUBLIC, path_of(live, job_id), content=body, headers=signed(body))
    assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})
    (delivery,) = live.service.resources.ledger.deliveries(job_id)
    assert (delivery.body, delivery.signature) == (body, "valid")


def test_a_compressed_callback_comes_through(fronted: Fronted) -> None:
    path, body = path_of(fronted.live, running_job(fronted.live, "theirs-zipped")), completed("theirs-zipped")
    sent = gzip.compress(body)
    headers = signed(sent) | {"content-encoding": "gzip"}
    assert fronted.front.ask("GET", PUBLIC, path).json() == {"status": "ready"}
    answer = fronted.front.ask("POST", PUBLIC, path, content=sent, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})


def test_callbacks_come_through_up_to_the_limit(fronted: Fronted) -> None:
    live, front = fronted.live, fronted.front
    most = CallbackSettings().max_bytes
    job_id = running_job(live, "theirs-large")
    path, body = path_of(live, job_id), completed("theirs-large")
    body += b" " * (most - len(body))
    answer = front.ask("POST", PUBLIC, path, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})
    larger = body + b" "
    for sent in (larger, larger * 6, iter([body, b" "])):  # announced, or found while it comes
        refused = front.ask("POST", PUBLIC, path, content=sent, headers=signed(larger))
        assert (refused.status_code, refused.read() != b"") == (413, True)
    assert len(live.service.resources.ledger.deliveries(job_id)) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ("/", "/v1/jobs", "/v1/events", "/metrics", "/readyz", "/sign-in")),
        *(("GET", f"/callbacks/{up}v1/jobs") for up in ("../", "%2e%2e/", "..%2f")),
        *(("POST", path) for path in ("/v1/jobs", "//v1/jobs")),
        *((method, "/callbacks/apiframe/x") for method in ("PUT", "DELETE", "OPTIONS")),
    ],
)
def test_the_internet_reaches_nothing_else(fronted: Fronted, method: str, path: str) -> None:
    answer = fronted.front.ask(method, PUBLIC, path, headers=BEARER)
    # Not one of ours: the proxy itself refuses. A callback's URL takes no other method.
    assert answer.status_code in {400, 403, 404}
    assert "x-request-id" not in answer.headers


def test_your_network_reaches_the_api_and_no_callbacks(fronted: Fronted) -> None:
    live, front = fronted.live, fronted.front
    jobs = front.ask("GET", INTERNAL, "/v1/jobs?limit=3", headers=BEARER)
    assert (jobs.status_code, jobs.json()) == (200, live.http.get("/v1/jobs", params={"limit": 3}).json())
    assert front.ask("GET", INTERNAL, "/v1/jobs").status_code == 401
    assert "Darkroom" in front.ask("GET", INTERNAL, "/sign-in").text
    body = completed("theirs-internal")
    path = path_of(live, running_job(live, "theirs-internal"))
    assert front.ask("POST", INTERNAL, path, content=body, headers=signed(body)).status_code == 404


def test_events_come_one_by_one(fronted: Fronted) -> None:
    live, front = fronted.live, fronted.front
    asked = front.request("GET", INTERNAL, "/v1/events", headers=BEARER, timeout=20)
    answer = front.http.send(asked, stream=True)
    try:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines).startswith("retry:"), "before anything has happened"
        job_id = running_job(live, "theirs-events")
        # The stream has not ended: what is read here was not held back until it did.
        assert job_id in next(line for line in lines if line.startswith("data:"))
    finally:
        answer.close()


def test_no_log_has_a_token(fronted: Fronted) -> None:
    live, front = fronted.live, fronted.front
    body = completed("theirs-logged")
    path = path_of(live, running_job(live, "theirs-logged"))
    token = path.rpartition("/")[2]
    large = b" " * (CallbackSettings().max_bytes + 1)
    for sent, query in ((body, ""), (large, ""), (b"", "?a")):
        front.ask("POST", PUBLIC, path + query, content=sent, headers=signed(sent))
    front.ask("GET", PUBLIC, path)
    front.ask("GET", INTERNAL, path)
    front.ask("GET", PUBLIC, "/elsewhere")
    logged = front.logs()
    assert "/elsewhere" in logged
    assert "/callbacks/apiframe/[token]" in logged
    assert token not in logged


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_log_has_a_token_while_nobody_is_behind(name: str, tmp_path: Path) -> None:
    token = "t" * 40
    with before(name, tmp_path, nobody()) as front:
        assert front.ask("POST", PUBLIC, f"/callbacks/apiframe/{token}", content=b"{}").status_code == 502
        assert front.ask("GET", INTERNAL, "/v1/jobs").status_code == 502
        logged = front.logs()
    assert "[token]" in logged
    assert token not in logged


@pytest.mark.parametrize("name", PROGRAMS)
def test_who_sent_it_is_told_and_cannot_be_claimed(name: str, tmp_path: Path) -> None:
    path, body = "/callbacks/api-in-one/a%2Fb.c-d~e?x=%20+", os.urandom(200_000)
    with CallbackReceiver() as receiver, before(name, tmp_path, urlsplit(receiver.url).port or 0) as front:
        claimed = {"x-forwarded-for": STRANGER, "content-encoding": "gzip", "x-webhook-signature": "s"}
        assert front.ask("POST", PUBLIC, path, content=body, headers=claimed).status_code == 200
        came = receiver.next()
    assert (came.path, hashlib.sha256(came.body).digest()) == (path, hashlib.sha256(body).digest())
    told = {name: came.headers[name] for name in ("x-forwarded-for", "x-forwarded-proto", "host")}
    assert told == {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https", "host": PUBLIC}
    assert (came.headers["content-encoding"], came.headers["x-webhook-signature"]) == ("gzip", "s")


@pytest.mark.parametrize("name", PROGRAMS)
def test_strangers_do_not_reach_the_api(name: str, tmp_path: Path) -> None:
    with CallbackReceiver() as receiver:
        port = urlsplit(receiver.url).port or 0
        # A test can come from loopback only; taken out of the list, that is where strangers are.
        with before(name, tmp_path, port, strangers="127.0.0.0/8") as front:
            assert front.ask("GET", INTERNAL, "/v1/jobs", headers=BEARER).status_code == 403
        assert receiver.none_left()


def test_nginx_has_the_limits_of_the_service() -> None:
    text = (DEPLOY / "nginx.conf").read_text()
    (patience,) = re.findall(r"proxy_read_timeout (\d+)s;", text)
    assert int(patience) > MAX_WAIT_S
    callbacks, files = (int(size) * 2**20 for size in re.findall(r"client_max_body_size (\d+)m;", text))
    assert callbacks == CallbackSettings().max_bytes
    assert files > DownloadSettings().max_bytes
