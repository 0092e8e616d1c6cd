"""Each stand-in, used as the gateway's documents say: by a plain client, with our verifiers."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from receiver import signatures
from receiver.errors import BadSignature
from receiver.sandbox import SandboxServer
from receiver.sandbox.core.stand_in import StandIn
from receiver.sandbox.gateways import STAND_INS
from receiver.signatures import Scheme, Signed, Verifier
from tests.support.recorder import CallbackReceiver, Received
from tests.support.sandbox import FAST, PROMPT, connect

Read = tuple[str, list[Any]]
"""A word for the state, and the images."""
SLOW = replace(FAST, latency_s=(60, 60))


@dataclass(frozen=True)
class Spoken:
    """How one gateway is spoken to, by its documents."""

    key: Mapping[str, str]
    """The headers with the API key."""
    submit: Callable[[httpx.Client, str], httpx.Response]
    """Submits a job that is to call back at a URL."""
    job_id: Callable[[Any], str]
    """Reads the id in the response to that."""
    poll: Callable[[httpx.Client, str], httpx.Response]
    read: Callable[[Any], Read]
    """Reads a poll."""
    words: tuple[str, str]
    """Success and failure."""
    called: Callable[[Any], Read] | None = None
    """Reads a callback, where that differs from a poll."""
    scheme: Scheme | None = None
    accepted: int = 200
    cancel: Callable[[httpx.Client, str], httpx.Response] | None = None
    cancelled: str = ""


SPOKEN: dict[str, Spoken] = {
    "replicate": Spoken(
        key={"authorization": "Bearer KEY"},
        submit=lambda client, url: client.post(
            "/v1/predictions",
            json={
                "version": "black-forest-labs/flux-schnell",
                "input": {"prompt": PROMPT, "num_outputs": 2},
                "webhook": url,
                "webhook_events_filter": ["completed"],
            },
        ),
        job_id=lambda answer: answer["id"],
        poll=lambda client, job_id: client.get(f"/v1/predictions/{job_id}"),
        read=lambda body: (body["status"], body["output"] or []),
        words=("succeeded", "failed"),
        scheme=signatures.STANDARD,
        accepted=201,
        cancel=lambda client, job_id: client.post(f"/v1/predictions/{job_id}/cancel"),
        cancelled="canceled",
    ),
}

each = pytest.mark.parametrize("name", SPOKEN)
signing = pytest.mark.parametrize("name", [name for name in SPOKEN if SPOKEN[name].scheme])


@pytest.fixture
def speaks(sandbox: SandboxServer, name: str) -> Iterator[httpx.Client]:
    with speaking(sandbox, name) as client:
        yield client


def speaking(sandbox: SandboxServer, name: str, kind: str = "sandbox") -> httpx.Client:
    key = f"{stand_in(name).key_prefix}_{kind}"
    headers = {header: value.replace("KEY", key) for header, value in SPOKEN[name].key.items()}
    return connect(sandbox, **headers)


def stand_in(name: str) -> type[StandIn]:
    return next(one for one in STAND_INS if one.name == name)


def submitted(client: httpx.Client, name: str, url: str, fault: str = "") -> str:
    spoken = SPOKEN[name]
    client.headers["x-sandbox-fault"] = fault
    answer = spoken.submit(client, url)
    assert answer.status_code == spoken.accepted, answer.text
    return spoken.job_id(answer.json())


def read_call(name: str, call: Received) -> Read:
    return (SPOKEN[name].called or SPOKEN[name].read)(call.json)


def verified(sandbox: SandboxServer, name: str, call: Received) -> Signed | None:
    """Verify a callback as a user would: with the secret that the settings have."""
    scheme = SPOKEN[name].scheme
    assert scheme is not None
    told = sandbox.settings()[name.replace("-", "_")]
    headers = {header.lower(): value for header, value in call.headers.items()}
    return Verifier(scheme, [told["webhook_secrets"]]).verify(headers, call.body, time.time())


@each
def test_a_job_is_told_by_callback_and_poll(
    sandbox: SandboxServer, speaks: httpx.Client, receiver: CallbackReceiver, name: str
) -> None:
    job_id = submitted(speaks, name, receiver.url)
    call = receiver.next()
    job = sandbox.wait(job_id)
    polled = SPOKEN[name].read(SPOKEN[name].poll(speaks, job_id).json())
    assert read_call(name, call) == polled == (SPOKEN[name].words[0], list(job.images))
    for n, link in enumerate(job.images):
        assert httpx.get(link, trust_env=False).content == sandbox.image_bytes(job_id, n)
    assert receiver.none_left()


@each
def test_a_failure_is_told_by_callback_and_poll(
    sandbox: SandboxServer, speaks: httpx.Client, receiver: CallbackReceiver, name: str
) -> None:
    job_id = submitted(speaks, name, receiver.url, "failed; message=too dark")
    call = receiver.next()
    sandbox.wait(job_id)
    polled = SPOKEN[name].poll(speaks, job_id)
    assert read_call(name, call) == (SPOKEN[name].words[1], [])
    assert SPOKEN[name].read(polled.json()) == (SPOKEN[name].words[1], [])
    assert "too dark" in call.body.decode()
    assert "too dark" in polled.text


@signing
def test_callbacks_are_signed(
    sandbox: SandboxServer, speaks: httpx.Client, receiver: CallbackReceiver, name: str
) -> None:
    submitted(speaks, name, receiver.url)
    signed = verified(sandbox, name, receiver.next())
    assert signed
    assert not signed.stale
    submitted(speaks, name, receiver.url, "unsigned")
    assert verified(sandbox, name, receiver.next()) is None
    submitted(speaks, name, receiver.url, "wrong_signature")
    with pytest.raises(BadSignature):
        verified(sandbox, name, receiver.next())


@signing
def test_signatures_can_be_stale(
    sandbox: SandboxServer, speaks: httpx.Client, receiver: CallbackReceiver, name: str
) -> None:
    if "stale_signature" not in stand_in(name).own_faults:
        pytest.skip("it signs no time")
    submitted(speaks, name, receiver.url, "stale_signature")
    signed = verified(sandbox, name, receiver.next())
    assert signed
    assert signed.stale


@each
def test_keys_credits_and_bodies_are_checked(sandbox: SandboxServer, name: str) -> None:
    for kind, status in (("unknown", 401), ("inactive", 403)):
        with speaking(sandbox, name, kind) as client:
            assert SPOKEN[name].submit(client, "http://127.0.0.1:9/").status_code == status
            assert SPOKEN[name].poll(client, "unknown").status_code == status
    with speaking(sandbox, name) as client:
        assert SPOKEN[name].poll(client, "unknown").status_code in (200, 400, 404)
        answer = SPOKEN[name].submit(client, "no url at all")
        assert answer.status_code in (400, 422), answer.text
        answer = SPOKEN[name].submit(client, "http://127.0.0.1:9/")
        client.headers["x-sandbox-fault"] = "rate_limited; retry_after_s=7"
        answer = SPOKEN[name].submit(client, "http://127.0.0.1:9/")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


@each
def test_a_job_can_be_cancelled(receiver: CallbackReceiver, name: str) -> None:
    cancel = SPOKEN[name].cancel
    if cancel is None:
        pytest.skip("it has no such route")
    with SandboxServer(SLOW) as sandbox, speaking(sandbox, name) as client:
        job_id = submitted(client, name, receiver.url)
        assert cancel(client, job_id).is_success
        assert sandbox.wait(job_id).status == "CANCELLED"
        assert SPOKEN[name].read(SPOKEN[name].poll(client, job_id).json())[0] == SPOKEN[name].cancelled
