"""The JSON API over real HTTP."""

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.http.middleware import RequestMiddleware, handlers
from receiver.sandbox import SandboxServer
from receiver.telemetry.metrics import Metrics
from tests.support.live import IMAGEN, ULTRA, Live, Start, started

NOBODY = "00000000-0000-7000-8000-000000000000"


def faults(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return {fault["field"]: fault["message"] for fault in answer.json()["faults"]}


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"prompt": ""}, {"prompt"}),
        ({"prompt": "   "}, {"prompt"}),
        ({"prompt": "x" * 2001}, {"prompt"}),
        ({"prompt": "nul \x00"}, {"prompt"}),
        ({"prompt": 7}, {"prompt"}),
        ({"aspect_ratio": "2:7"}, {"aspect_ratio"}),
        ({"num_images": "two"}, {"num_images"}),
        ({"num_images": 0}, {"num_images"}),
        ({"seed": 1.5}, {"seed"}),
        ({"params": ["image_size"]}, {"params"}),
        ({"params": {"image_size": "8K"}}, {"params.image_size"}),
        ({"params": {"model": "another"}}, {"params.model"}),
        ({"params": {"notes": "x" * 70_000}}, {"params"}),
        ({"tags": {"bad/name": "x"}}, {"tags.bad/name"}),
        ({"tags": {"a": 1}}, {"tags.a"}),
        ({"tags": {"a": "nul \x00"}}, {"tags.a"}),
        ({"seed": "nul \x00"}, {"seed"}),
        ({"surprise": True}, {"surprise"}),
        ({"model": None}, {"model"}),
        ({"prompt": 7, "num_images": "two", "aspect_ratio": 3}, {"prompt", "num_images", "aspect_ratio"}),
        ({"prompt": "x" * 2001, "aspect_ratio": "2:7"}, {"prompt", "aspect_ratio"}),
    ],
)
def test_every_field_that_is_wrong_is_named(
    live: Live, change: dict[str, Any], fields: set[str] | None
) -> None:
    answer = live.http.post("/v1/jobs", json=IMAGEN | change)
    named = faults(answer)
    assert answer.json()["code"] == "invalid_request"
    assert named
    assert fields is None or set(named) == fields


def test_tags_that_make_a_key_too_long_are_refused(start: Start) -> None:
    live = start(key_template="{tag:album}{tag:event}/{job_id}/{index}.{ext}")
    tags = {"album": "\U00020000" * 100, "event": "\U00020000" * 100}
    named = faults(live.http.post("/v1/jobs", json=IMAGEN | {"tags": tags}))
    assert named["tags"].endswith("shorten tag:album or tag:event")
    assert live.http.get("/v1/status").json()["accepted"] == 0
    (output,) = live.outputs(live.make(IMAGEN, tags=tags | {"event": "fair"})["id"])
    assert output["key"].startswith("\U00020000" * 32 + "fair/")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"null", b"[" * 100_000])
def test_what_is_no_json_object_is_told_so(live: Live, body: bytes) -> None:
    assert faults(live.http.post("/v1/jobs", content=body))


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_number_that_json_cannot_hold_is_refused(live: Live, number: str) -> None:
    body = json.dumps(IMAGEN | {"params": {"deep": [{"a": 7}]}}).replace("7", number)
    assert set(faults(live.http.post("/v1/jobs", content=body))) == {"params"}
    # Once stored, it would spoil every list that the job is on.
    assert live.http.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [({"seed": 7}, "seed"), ({"negative_prompt": "x"}, "negative_prompt"), ({"num_images": 2}, "num_images")],
)
def test_an_unsupported_parameter_is_refused_by_name(live: Live, change: dict[str, Any], field: str) -> None:
    answer = live.http.post("/v1/jobs", json=IMAGEN | change)
    assert set(faults(answer)) == {field}
    assert answer.json()["code"] == "unsupported_parameter"


def test_a_dropped_parameter_is_in_the_record(live: Live) -> None:
    job = live.make(IMAGEN, seed=7, unsupported="ignore")
    assert job["status"] == "archived"
    record = live.bucket.archive.read_record(live.job(job["id"]))
    assert record["request"]["asked"]["ignored"] == ["seed"]
    assert record["request"]["asked"]["seed"] == "7"
    assert "seed" not in str(record["request"]["sent"])
    assert record["seed"] == {"requested": "7", "returned": None, "echoed": None, "supported": False}


def test_an_unknown_gateway_is_told_the_known_ones(live: Live) -> None:
    answer = live.http.post("/v1/jobs", json=IMAGEN | {"gateway": "dall-e"})
    assert "use api-in-one or apiframe" in faults(answer)["gateway"]
    assert answer.json()["code"] == "unknown_gateway"


def test_one_key_and_body_are_one_job_even_at_once(live: Live) -> None:
    headers = {"idempotency-key": "order-1234"}
    body = IMAGEN | {"prompt": "submitted many times"}

    def send(_: int) -> httpx.Response:
        return httpx.post(f"{live.url}/v1/jobs", json=body, headers=headers)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(send, range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = live.http.post("/v1/jobs", json=body | {"prompt": "another"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


def test_a_submitted_job_says_where_to_look(live: Live) -> None:
    answer = live.http.post("/v1/jobs", json=IMAGEN | {"tags": {"k": "v"}})
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    assert answer.json()["request"]["tags"] == {"k": "v"}
    assert answer.json()["timeline"][0]["status"] == "queued"


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs/nobody", "/v1/jobs/%00", "/v1/outputs/nobody.0", "/v1/outputs/x", "/v1/outputs/x.0/image",
     f"/v1/outputs/{NOBODY}", "/nowhere"],
)  # fmt: skip
def test_what_is_not_there_is_404_with_a_code(live: Live, path: str) -> None:
    answer = live.http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_pages_hold_everything_once(live: Live) -> None:
    made = [live.submit(IMAGEN, tags={"batch": "paging"})["id"] for _ in range(5)]
    for job_id in made:
        live.finish(job_id)
    for kind in ("jobs", "outputs"):
        seen, url = [], f"/v1/{kind}?tag.batch=paging&limit=2"
        while url:
            answer = live.http.get(url)
            page = answer.json()
            seen += [item["id"] for item in page[kind]]
            assert len(page[kind]) <= 2
            url = answer.links["next"]["url"] if page["next_cursor"] else ""
        assert seen == [job_id if kind == "jobs" else f"{job_id}.0" for job_id in reversed(made)]


@pytest.mark.parametrize("route", ["/v1/jobs", "/v1/outputs"])
@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ({"gateway": "apifram"}, "No job has the gateway apifram. Did you mean apiframe?"),
        ({"q": "-gateway:apifram"}, "No job has the gateway apifram. Did you mean apiframe?"),
        ({"model": "imagen4-fsat"}, "The model imagen4-fsat is not known here. Did you mean imagen4-fast?"),
        (
            {"q": "promt:kite"},
            "promt:kite was searched for in prompts, as it has no known key. Did you mean kite?",
        ),
        ({"gateway": "APIframe", "model": "Imagen-4", "q": "16:9 OR note: style:anime"}, None),
    ],
)
def test_a_slip_in_a_search_gets_a_hint(
    live: Live, route: str, query: dict[str, str], hint: str | None
) -> None:
    answer = live.http.get(route, params=query)
    assert answer.status_code == 200
    assert answer.json().get("hints") == (None if hint is None else [hint])


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=RAMEN chopsticks-free", True), ("q=ramen missing-word", False), ("q=100%25_", False),
        ("seed=424242", True), ("seed=42424", False), ("model=imagen4", True), ("model=imagen", False),
        ("tag.dish=寿司", True), ("tag.dish=寿", False), ("gateway=api-in-one&status=archived", True),
        ("gateway=apiframe", False), ("status=failed", False),
    ],
)  # fmt: skip
def test_outputs_are_found_by_what_made_them(live: Live, searchable: str, query: str, found: bool) -> None:
    answer = live.http.get(f"/v1/outputs?tag.find=me&{query}")
    assert [output["job_id"] for output in answer.json()["outputs"]] == [searchable] * found


@pytest.fixture(scope="module")
def searchable(live: Live) -> str:
    """A job that is unlike every other one of this run."""
    body = ULTRA | {"model": "imagen4", "prompt": "A bowl of Ramen, chopsticks-free", "seed": 424242}
    return str(live.make(body, tags={"dish": "寿司", "find": "me"})["id"])


def test_outputs_are_found_by_job_and_digest(live: Live, searchable: str) -> None:
    (output,) = live.outputs(searchable)
    same = live.http.get("/v1/outputs", params={"sha256": output["sha256"].upper(), "tag.find": "me"})
    assert same.json()["outputs"] == [output]
    begun = live.http.get("/v1/outputs", params={"sha256": output["sha256"][:12], "tag.find": "me"})
    assert begun.json()["outputs"] == [output]
    one = live.http.get(f"/v1/outputs/{output['id']}").json()
    assert one["job"]["id"] == searchable
    assert {key: one[key] for key in output} == output


@pytest.mark.parametrize(
    "query",
    [
        {"colour": "red"}, {"limit": "0"}, {"limit": "501"}, {"cursor": "nonsense"}, {"status": "done"},
        {"q": "\x00"}, {"q": "word " * 33}, {"sha256": "xyz%"}, {"tag.a/b": "c"}, {'tag."': "c"},
    ],
)  # fmt: skip
def test_a_query_that_makes_no_sense_is_refused(live: Live, query: dict[str, str]) -> None:
    assert faults(live.http.get("/v1/outputs", params=query))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/jobs?limit=1&limit=2", "limit"),
        ("/v1/outputs?tag.a=b&tag.a=c", "tag.a"),
        (f"/v1/jobs/{NOBODY}?limit=1", "limit"),
        (f"/v1/outputs/{NOBODY}.0?wait=1", "wait"),
        (f"/v1/outputs/{NOBODY}.0/image?stream=perhaps", "stream"),
        ("/v1/status?gateway=apiframe", "gateway"),
        *((f"/v1/jobs/{NOBODY}?wait={wait}", "wait") for wait in ("-1", "61", "soon", "nan", "")),
        *((f"/v1/jobs?{name}=1", name) for name in ("seed", "sha256", "job")),
    ],
)
def test_a_parameter_that_means_nothing_is_refused(live: Live, path: str, name: str) -> None:
    assert set(faults(live.http.get(path))) == {name}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/jobs", "GET, HEAD, POST"),
        ("OPTIONS", f"/v1/jobs/{NOBODY}", "GET, HEAD"),
        ("PUT", "/callbacks/apiframe/token", "GET, HEAD, POST"),
    ],
)
def test_a_wrong_method_is_told_every_right_one(live: Live, method: str, path: str, allowed: str) -> None:
    answer = live.http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_a_request_id_is_kept_if_it_is_harmless(live: Live) -> None:
    assert live.http.get("/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert live.http.get("/healthz", headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"


def test_without_tokens_other_sites_are_refused(live: Live) -> None:
    page = live.http.post("/v1/jobs", json=IMAGEN, headers={"origin": "https://evil.example"})
    assert page.status_code == 401
    answer = live.http.get("/v1/jobs", headers={"host": "tunnel.example"})
    assert answer.status_code == 401
    assert "DARKROOM_API_TOKENS" in answer.json()["detail"]


def test_a_sender_that_hangs_up_is_no_fault_of_ours(live: Live, capfd: pytest.CaptureFixture[str]) -> None:
    host, port = live.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/jobs HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-length: 100\r\n\r\nhalf"
        connection.sendall(head.encode())
    seen = ""
    for _ in range(250):
        seen += capfd.readouterr().out
        if "status=499" in seen:
            break
        threading.Event().wait(0.02)
    assert "status=499" in seen
    assert "Traceback" not in seen


def test_a_fault_of_ours_has_the_id_that_the_log_has() -> None:
    async def fail(_request: Request) -> Response:
        raise RuntimeError("on purpose")

    app = Starlette(
        routes=[Route("/", fail)],
        middleware=[Middleware(RequestMiddleware, metrics=Metrics([]))],
        exception_handlers=handlers(),
    )

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/", headers={"x-request-id": "find-me"})

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["x-request-id"] == "find-me"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "on purpose" not in answer.text


def test_a_submit_body_over_the_limit_is_413(live: Live) -> None:
    answer = live.http.post("/v1/jobs", content=b" " * (1024 * 1024 + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_readiness_names_the_part_that_is_missing(sandbox: SandboxServer, tmp_path: Path) -> None:
    with EmbeddedS3(tmp_path / "s3") as own, started(own, tmp_path, sandbox=sandbox) as live:
        ready = live.http.get("/readyz")
        assert (ready.status_code, ready.json()["status"], ready.json()["warnings"]) == (200, "ready", {})
        assert set(ready.json()["checks"]) == {"ledger", "archive", "results", "history", "workers"}
        own.stop()
        live.service.health.forget()
        answer = live.http.get("/readyz", timeout=60)
        assert answer.status_code == 503
        assert "DARKROOM_S3__ENDPOINT" in answer.json()["checks"]["archive"]
        assert answer.json()["checks"]["ledger"] == "ok"
