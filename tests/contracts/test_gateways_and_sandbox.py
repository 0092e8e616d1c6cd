"""Each gateway's adapter with its stand-in over HTTP: what one sends, the other reads, and signatures fit."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from time import time
from typing import Any

import httpx
import pytest

from receiver.errors import BadSignature
from receiver.gateways.adapter import Adapter
from receiver.gateways.base import Completion, Follow, State
from receiver.gateways.registry import ADAPTERS
from receiver.sandbox import SandboxServer
from receiver.sandbox.gateways import STAND_INS
from storage.models import Job, Verdict
from tests.support.gateway_samples import a_job, adapter, scheme_of, signs
from tests.support.recorder import CallbackReceiver, Received
from tests.support.sandbox import FAST

MODELS = {stand_in.name: stand_in.model for stand_in in STAND_INS}
BOTH = {one.table.name: one for one in ADAPTERS if one.table.name in MODELS}
SIGNED = [name for name, one in BOTH.items() if one.table.signing]

each_gateway = pytest.mark.parametrize("name", BOTH)
each_signing = pytest.mark.parametrize("name", SIGNED)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(FAST) as server:
        yield server


@pytest.fixture(scope="module")
def idle() -> Iterator[SandboxServer]:
    """One whose jobs do not end."""
    with SandboxServer(replace(FAST, latency_s=(60, 60))) as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[CallbackReceiver]:
    with CallbackReceiver() as receiver:
        yield receiver


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as client:
        yield client


class Spoken:
    """An adapter that is set to a sandbox, and a client that sends what it builds."""

    def __init__(self, name: str, sandbox: SandboxServer, client: httpx.Client) -> None:
        settings: dict[str, Any] = dict(sandbox.settings()[name.replace("-", "_")])
        self.gateway: Adapter = adapter(BOTH[name], settings.pop("api_key"), **settings)
        self.client = client

    def submitted(self, callback_url: str | None, **request: Any) -> Job:
        job = a_job(self.gateway.name, model=MODELS[self.gateway.name], **request)
        job = replace(job, id=str(uuid.uuid4()))
        response = self.client.send(self.gateway.submit_request(job, callback_url))
        submission = self.gateway.read_submission(response)
        return replace(job, gateway_job_id=submission.gateway_job_id, poll_url=submission.poll_url)

    def polled(self, job: Job) -> Completion:
        found: Completion | Follow = self.gateway.read_poll(self.client.send(self.gateway.poll(job)), job)
        if isinstance(found, Follow):
            found = found.read(self.client.send(found.request))
            assert isinstance(found, Completion)
        return found

    def keys(self) -> tuple[bytes, ...]:
        request = self.gateway.keys_request()
        return () if request is None else self.gateway.read_keys(self.client.send(request))

    def verify(self, received: Received, body: bytes | None = None, at: float | None = None) -> Verdict:
        headers = {name.lower(): value for name, value in received.headers.items()}
        return self.gateway.verify(
            headers, received.body if body is None else body, now_s=at or time(), keys=self.keys()
        )


def last(gateway: Adapter, receiver: CallbackReceiver) -> tuple[Received, Completion]:
    """The callback that ends a job, or the first of those that lead to a poll."""
    while True:
        received = receiver.next()
        completion = gateway.read_callback(received.body)
        if completion.state is not State.RUNNING:
            return received, completion


@each_gateway
def test_a_job_goes_through(
    name: str, sandbox: SandboxServer, receiver: CallbackReceiver, client: httpx.Client
) -> None:
    spoken = Spoken(name, sandbox, client)
    job = spoken.submitted(receiver.url)
    received, told = last(spoken.gateway, receiver)
    polled = spoken.polled(job)
    assert told.gateway_job_id == polled.gateway_job_id == job.gateway_job_id
    assert told.state is polled.state is State.SUCCEEDED
    assert polled.images
    if not told.partial:
        assert [image.url for image in told.images] == [image.url for image in polled.images]
    assert (told.unread, polled.unread) == (None, None)
    assert spoken.verify(received) is signs(spoken.gateway.table.signing)


@each_gateway
def test_a_failure_is_told_or_found(name: str, sandbox: SandboxServer, client: httpx.Client) -> None:
    spoken = Spoken(name, sandbox, client)
    job = spoken.submitted(None, params={"sandbox": {"fault": "failed"}})
    sandbox.wait(str(job.gateway_job_id))
    assert spoken.polled(job).state is State.FAILED


@each_signing
def test_a_signature_that_is_altered_stale_or_missing(
    name: str, sandbox: SandboxServer, receiver: CallbackReceiver, client: httpx.Client
) -> None:
    spoken = Spoken(name, sandbox, client)
    spoken.submitted(receiver.url)
    received, _ = last(spoken.gateway, receiver)
    signing = spoken.gateway.table.signing
    assert signing is not None
    scheme, covered = scheme_of(signing), signs(signing) is Verdict.VALID
    if covered:
        with pytest.raises(BadSignature):
            spoken.verify(received, body=received.body + b" ")
    forged = {key: value for key, value in received.headers.items() if key.lower() != scheme.header}
    assert spoken.verify(replace(received, headers=forged)) is Verdict.ABSENT
    signature = next(value for key, value in received.headers.items() if key.lower() == scheme.header)
    altered = signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")
    with pytest.raises(BadSignature):
        spoken.verify(replace(received, headers={**forged, scheme.header: altered}))
    if scheme.time_header and covered:
        assert spoken.verify(received, at=time() + 4000) is Verdict.STALE
        assert spoken.verify(received, at=time() - 4000) is Verdict.STALE


@pytest.mark.parametrize("name", [name for name, one in BOTH.items() if one.table.cancel])
def test_a_running_job_is_cancelled(name: str, idle: SandboxServer, client: httpx.Client) -> None:
    spoken = Spoken(name, idle, client)
    job = spoken.submitted(None)
    assert spoken.polled(job).state is State.RUNNING
    request = spoken.gateway.cancel_request(job)
    assert request is not None
    spoken.gateway.read_cancel(spoken.client.send(request))
    assert spoken.polled(job).state is State.FAILED


@pytest.mark.parametrize("name", [name for name, one in BOTH.items() if one.table.listing])
def test_its_list_has_the_job(name: str, sandbox: SandboxServer, client: httpx.Client) -> None:
    spoken = Spoken(name, sandbox, client)
    job = spoken.submitted(None)
    request = spoken.gateway.list_request(None)
    assert request is not None
    assert job.gateway_job_id in spoken.gateway.read_list(spoken.client.send(request)).completions
