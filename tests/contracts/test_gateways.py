"""What every gateway must do: each of the registry, with its samples."""

import json
import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver import errors
from receiver.errors import BadSignature, GatewayError, MalformedCallback
from receiver.gateways import declared
from receiver.gateways.adapter import Adapter
from receiver.gateways.base import Completion, Gateway, State
from receiver.gateways.registry import ADAPTERS as REGISTERED
from receiver.gateways.requests import sent
from receiver.signatures import KeyScheme
from storage.models import Job, Verdict
from tests.support.gateway_samples import a_job, cases, check, keys_of, load, scheme_of, settings_of
from tests.support.gateway_samples import adapter as adapter_of

KEY = "key_8f3a_very_secret"
PROOFS = {Verdict.VALID, Verdict.ORIGIN}
CALLBACK = "https://archive.example/callbacks/gateway/token-which-is-secret"
DECLARED = [declared.adapter_of(declared.read(path), {}) for path in sorted(declared.SHIPPED.glob("*.toml"))]
"""Those that come as files."""
ADAPTERS: dict[str, type[Adapter]] = {one.table.setting: one for one in (*REGISTERED, *DECLARED)}

each_adapter = pytest.mark.parametrize("adapter", ADAPTERS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
KEYS = """
    jobId status event result images url gridUrl seed error model creditCost id data task_id taskId code
    message output image_urls image_url state resultJson param failMsg task_status task_result results
    response info successFlag object COMPLETED FAILED success 200 3 {} {"resultUrls":1}
"""
WORDS = st.sampled_from(re.findall(r"\S+", KEYS))
SHAPES = st.recursive(
    st.none() | st.integers() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=6),
    max_leaves=25,
)


def made(name: str) -> Adapter:
    return adapter_of(ADAPTERS[name], KEY)


def job(adapter: str, **request: Any) -> Job:
    table = ADAPTERS[adapter].table
    model = table.models[0] if table.models else "vendor/a-model"
    return replace(a_job(table.name, **{"model": model, **request}), gateway_job_id="some-id")


def everything(request: httpx.Request) -> str:
    """All that a request says, with the texts of its query as they were before they were quoted."""
    query = " ".join(f"{name}={value}" for name, value in request.url.params.multi_items())
    heads = " ".join(value for name, value in request.headers.items() if name != "content-length")
    return f"{request.url.path} {query} {heads} {request.content.decode()}"


@each_adapter
def test_an_adapter_says_who_it_is(adapter: str) -> None:
    gateway, table = made(adapter), ADAPTERS[adapter].table
    assert gateway.name == table.name == adapter.replace("_", "-")
    assert re.fullmatch(r"[a-z0-9-]{2,32}", gateway.name)
    hosts = [*table.image_hosts, *table.poll_hosts]
    assert all(re.fullmatch(r"[a-z0-9.-]+", host) for host in hosts)
    assert table.base_url.startswith("https://")
    assert table.docs.startswith("https://")


@pytest.mark.parametrize(("adapter", "case"), [(name, case) for name in ADAPTERS for case in cases(name)])
def test_samples(adapter: str, case: str) -> None:
    own = settings_of(adapter)
    check(load(adapter, case), adapter_of(ADAPTERS[adapter], own.pop("api_key", KEY), **own))


SIGNED = {
    name: next(
        load(name, case) for case in cases(name) if load(name, case).expected.get("signature") in PROOFS
    )
    for name, adapter in ADAPTERS.items()
    if adapter.table.signing
}


@pytest.mark.parametrize("adapter", SIGNED)
def test_a_signature_is_right_or_wrong_or_stale_or_missing(adapter: str) -> None:
    sample, settings, table = SIGNED[adapter], settings_of(adapter), ADAPTERS[adapter].table
    signing = table.signing
    assert signing is not None
    scheme, keys = scheme_of(signing), keys_of(adapter)
    gateway = adapter_of(ADAPTERS[adapter], settings.pop("api_key", KEY), **settings)
    given, now_s = sample.headers, sample.expected.get("now_s", 0)

    def verdict(headers: dict[str, str] = given, body: bytes = sample.body, *, later_s: int = 0) -> Verdict:
        return gateway.verify(headers, body, now_s=now_s + later_s, keys=keys)

    proven = verdict()
    assert proven == verdict(later_s=60) == sample.expected["signature"], "a replay is told by its content"
    stale = Verdict.STALE if scheme.time_header and proven is Verdict.VALID else proven
    assert verdict(later_s=scheme.tolerance_s + 7200) == stale
    unsigned = {name: value for name, value in given.items() if name != scheme.header}
    if not signing.required:
        assert verdict(unsigned) is Verdict.ABSENT
    signature = given[scheme.header]
    forged: list[dict[str, Any]] = [
        {"headers": given | {scheme.header: f"{signature[:-12]}AAAAAAAAAAA{signature[-1]}"}}
    ]
    if proven is Verdict.VALID:
        forged.append({"body": sample.body + b" "})
    if scheme.time_header:
        forged.append({"headers": given | {scheme.time_header: str(now_s + 1)}})
    for one in forged:
        with pytest.raises(BadSignature, match=table.settings):
            verdict(**one)


@each_adapter
def test_a_submission_carries_the_callback_once(adapter: str) -> None:
    asked = job(adapter, params={"b": 1, "a": 2})
    request, again = (made(adapter).submit_request(asked, CALLBACK) for _ in range(2))
    assert (request.url, request.headers, request.content) == (again.url, again.headers, again.content)
    callback = ADAPTERS[adapter].table.callback
    if callback is not None:
        assert everything(request).count(CALLBACK) == 1
        assert bool(callback.query) == ("callbacks" in str(request.url))
    alone = made(adapter).submit_request(job(adapter), None)
    assert not re.search("callback|webhook", everything(alone), re.IGNORECASE)


@each_adapter
def test_the_key_is_in_one_header_and_nowhere_else(adapter: str) -> None:
    gateway = made(adapter)
    calls = (gateway.poll(job(adapter)), gateway.cancel_request(job(adapter)), gateway.list_request(None))
    for request in (gateway.submit_request(job(adapter), CALLBACK), *filter(None, calls)):
        assert sum(KEY in value for value in request.headers.values()) == 1
        assert everything(request).count(KEY) == 1
        assert request.headers["user-agent"]
    assert KEY not in repr(gateway)
    header = ADAPTERS[adapter].table.idempotency
    said = gateway.submit_request(job(adapter), None).headers.get(header or "idempotency-key")
    assert said == (job(adapter).id if gateway.idempotent else None)


@each_adapter
@given(
    prompt=st.text(),
    negative=st.none() | st.text(),
    seed=st.none() | st.text(),
    count=st.none() | st.integers(),
)
def test_any_request_can_be_judged_and_built(
    adapter: str, prompt: str, negative: str | None, seed: str | None, count: int | None
) -> None:
    asked = job(adapter, prompt=prompt, negative_prompt=negative, seed=seed, num_images=count)
    gateway = made(adapter)
    optional = {"seed", "negative_prompt", "num_images", "aspect_ratio"}
    assert set(gateway.unsupported(asked.request)) <= optional
    for fault in gateway.faults(asked.request):
        assert set(fault) == {"field", "message"}
    gateway.estimate(asked.request)
    assert prompt in texts(sent(gateway.submit_request(asked, CALLBACK)))


def texts(value: object) -> list[object]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(text for one in inner for text in texts(one))]


STATUSES: dict[type[GatewayError], list[int]] = {
    errors.GatewayRefused: [400, 404, 405, 413, 418, 422],
    errors.GatewayUnauthorized: [401, 403],
    errors.OutOfCredits: [402],
    errors.RateLimited: [429],
    errors.GatewayUnavailable: [301, 408, 500, 502, 503, 599],
    errors.GarbledAnswer: [200, 202, 204],
}
REFUSALS = [(status, error) for error, statuses in STATUSES.items() for status in statuses]
BODIES = [
    b"",
    b"<html>Bad gateway</html>",
    b"nonsense \xff\x00",
    b'{"error": {"message": "no"}}',
    b'{"error": null, "details": [1]}',
    b'{"message": 7}',
    b"[]",
    b"[" * 100_000,
    json.dumps({"error": f"do not say {KEY}, nor https://x.example/a?sig=1 " + "a" * 9000}).encode(),
]


@each_adapter
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_every_other_answer_is_an_error(adapter: str, body: bytes) -> None:
    gateway = made(adapter)
    for status, expected in REFUSALS:
        is_an_error(gateway, status, expected, body)


def is_an_error(gateway: Adapter, status: int, expected: type[GatewayError], body: bytes) -> None:
    answer = httpx.Response(status, content=body, headers={"x-request-id": "req-1"})
    with pytest.raises(GatewayError) as caught:
        gateway.read_submission(answer)
    assert type(caught.value) is expected
    assert_fit_to_show(caught.value)
    page = body.startswith(b"<")
    unknown = errors.GatewayUnavailable if page else errors.UnknownGatewayJob
    asked = unknown if status == 404 else expected
    with pytest.raises(GatewayError) as caught:
        gateway.read_poll(answer, job(gateway.table.setting))
    assert type(caught.value) is asked
    assert_fit_to_show(caught.value)


def assert_fit_to_show(error: GatewayError) -> None:
    assert error.request_id == "req-1"
    assert KEY not in str(error) + str(error.details)
    assert "sig=1" not in str(error) + str(error.details)
    assert "<html" not in str(error)
    assert 20 < len(str(error)) < 800
    assert str(error).endswith(".")
    assert "\n" not in str(error)


@each_adapter
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_its_setting(adapter: str, status: int) -> None:
    with pytest.raises(errors.GatewayUnauthorized, match=f"DARKROOM_GATEWAYS__{adapter.upper()}__API_KEY"):
        made(adapter).read_submission(httpx.Response(status, json={"error": "no"}))


@each_adapter
@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, 10.0),
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": "0"}, 1.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "999999999"}, 3600.0),
        ({"retry-after": "9" * 400}, 10.0),
        ({"retry-after": "-5"}, 10.0),
        ({"retry-after": "nan"}, 10.0),
        ({"retry-after": "soon"}, 10.0),
        ({"retry-after": "٣"}, 10.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:45 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 45.0),
        ({"retry-after": "Sun, 22 Nov 2026 09:00:00 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 1.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:45 GMT"}, 10.0),
        ({"retry-after": "Sun, 99 Nov 99999 10:00:45 GMT", "date": "x"}, 10.0),
    ],
)
def test_the_gateway_says_how_long_to_wait(adapter: str, headers: dict[str, str], wait: float) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    with pytest.raises(errors.RateLimited) as caught:
        made(adapter).read_submission(httpx.Response(429, headers=raw))
    assert caught.value.retry_after_s == wait


def read(gateway: Gateway, body: bytes) -> Completion | None:
    try:
        return gateway.read_callback(body)
    except MalformedCallback:
        return None


def assert_sound(found: Completion | None) -> None:
    """A completion can be stored anywhere: bounded texts that every encoding and database takes."""
    if found is None:
        return
    json.dumps(found.reply)
    texts = [
        found.gateway_job_id,
        found.model,
        found.seed,
        found.error,
        *(image.url for image in found.images),
    ]
    for text in (*texts, *(image.seed for image in found.images)):
        assert text is None or (text and len(text) <= 8192 and "\x00" not in text and text.encode())
    assert found.state is State.SUCCEEDED or not found.images


@each_adapter
@settings(deadline=None)
@given(body=st.binary())
@example(body=b"[" * 1_000_000)
@example(body=b'{"a":' * 200_000)
@example(body=b'{"data":' * 64 + b"1" + b"}" * 64)
@example(body=b'"' + b"a" * 4_000_000)
@example(body="{}".encode("utf-16"))
@example(body=b"\xef\xbb\xbf{}")
def test_hostile_bytes_are_malformed(adapter: str, body: bytes) -> None:
    assert_sound(read(made(adapter), body))


@each_adapter
@given(value=JSON | SHAPES)
def test_hostile_json_is_malformed(adapter: str, value: object) -> None:
    body = json.dumps(value).encode()
    gateway = made(adapter)
    assert_sound(read(gateway, body))
    for answer in (httpx.Response(200, content=body), httpx.Response(400, content=body)):
        with suppress(GatewayError):
            found = gateway.read_poll(answer, job(adapter))
            assert_sound(found if isinstance(found, Completion) else None)


@each_adapter
@given(signature=st.text(), body=st.binary())
@example(signature="sha256=" + "0" * 1_000_000, body=b"")
@example(signature="\ud800", body=b"")
def test_hostile_headers_are_bad_signatures(adapter: str, signature: str, body: bytes) -> None:
    settings = {"api_key": KEY} | settings_of(adapter)
    gateway = adapter_of(ADAPTERS[adapter], settings.pop("api_key"), **settings)
    verdict = None
    with suppress(BadSignature):
        verdict = gateway.verify(
            dict.fromkeys(signature_headers(adapter), signature), body, now_s=0, keys=keys_of(adapter)
        )
    assert verdict in (None, Verdict.UNSUPPORTED)


def signature_headers(adapter: str) -> list[str]:
    signing = ADAPTERS[adapter].table.signing
    if signing is None:
        return ["x-webhook-signature"]
    scheme = scheme_of(signing)
    ids = scheme.id_headers if isinstance(scheme, KeyScheme) else (scheme.id_header,)
    return [scheme.header, *ids, scheme.time_header]


@each_adapter
@given(job_id=st.text(min_size=1, max_size=255))
@example(job_id="..")
@example(job_id=".")
@example(job_id="../../v2/me")
@example(job_id="a?b=c#d")
@example(job_id="a%2Fb")
@example(job_id="\ud800")
def test_a_poll_stays_on_its_path_whatever_the_id(adapter: str, job_id: str) -> None:
    gateway = made(adapter)
    plain, odd = (gateway.poll(replace(job(adapter), gateway_job_id=one)) for one in ("x", job_id))
    assert odd.method == plain.method
    assert odd.url.host == plain.url.host
    assert not odd.url.fragment
    assert odd.url.params.keys() == plain.url.params.keys()
    ours, theirs = (url.raw_path.partition(b"?")[0].split(b"/") for url in (plain.url, odd.url))
    assert len(ours) == len(theirs)
    changed = [new for old, new in zip(ours, theirs, strict=True) if old != new]
    assert not {b"", b".", b".."}.intersection(changed)


@each_adapter
def test_callback_and_poll_are_read_alike(adapter: str) -> None:
    """Where the table has one reading for both."""
    if ADAPTERS[adapter].table.read_poll is not None:
        pytest.skip("its polls are read otherwise")
    gateway = made(adapter)
    for case in [one for one in cases(adapter) if one.startswith("callback_")]:
        sample = load(adapter, case)
        if "raises" in sample.expected:
            continue
        called = gateway.read_callback(sample.body)
        with suppress(GatewayError):
            polled = gateway.read_poll(httpx.Response(200, content=sample.body), job(adapter))
            assert called == polled
        if not ADAPTERS[adapter].table.redact:
            assert called.reply == json.loads(sample.body)
