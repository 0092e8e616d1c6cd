"""Reads `tests/samples/<gateway>/<case>/`: bytes that a gateway may send, and what they mean.

`body.json` is sent as it is; `headers.json` are its headers; `expected.json` says who reads it (`callback`,
`poll`, `submission`) and with what outcome: fields of the result, or the code of the error. With `request`
it is the other way: body and headers are those of the submission of what is `asked`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from receiver import signatures
from receiver.errors import DarkroomError
from receiver.gateways.adapter import Adapter
from receiver.gateways.base import Completion, Gateway, Submission
from receiver.gateways.requests import sent
from receiver.gateways.settings import settings_of as settings_model
from receiver.gateways.table import Signing
from storage.models import Job, JobRequest, Status, Verdict

A = TypeVar("A", bound=Adapter)

FIELDS = (
    *("state", "gateway_job_id", "model", "seed", "echoed_seed", "credits", "error", "request_id"),
    *("poll_url", "unread", "partial"),
)
SAMPLES = Path(__file__).parents[1] / "samples"


@dataclass(frozen=True, slots=True)
class Sample:
    body: bytes
    headers: dict[str, str]
    expected: dict[str, Any]

    def read(self, gateway: Gateway) -> Completion | Submission:
        if self.expected["read"] == "callback":
            return gateway.read_callback(self.body)
        response = httpx.Response(self.expected["status"], headers=self.headers, content=self.body)
        if self.expected["read"] == "poll":
            found = gateway.read_poll(response, a_job(gateway.name))
            assert isinstance(found, Completion)
            return found
        return gateway.read_submission(response)


def cases(gateway: str) -> list[str]:
    return sorted(path.name for path in (SAMPLES / gateway).iterdir() if path.is_dir())


def settings_of(gateway: str) -> dict[str, Any]:
    """The settings with which its samples are read."""
    place = SAMPLES / gateway / "settings.json"
    return json.loads(place.read_bytes()) if place.exists() else {}


def keys_of(gateway: str) -> tuple[bytes, ...]:
    """The public keys of one that publishes them."""
    place = SAMPLES / gateway / "keys.json"
    return signatures.public_keys(json.loads(place.read_bytes())) if place.exists() else ()


def scheme_of(signing: Signing) -> signatures.Scheme | signatures.KeyScheme:
    schemes = signatures.KEY_SCHEMES if signing.by == "keys" else signatures.SCHEMES
    return schemes[signing.scheme]


def signs(signing: Signing | None) -> Verdict:
    """The verdict on what it signed."""
    if signing is None:
        return Verdict.UNSUPPORTED
    scheme = scheme_of(signing)
    covered = isinstance(scheme, signatures.KeyScheme) or scheme.content.endswith("body")
    return Verdict.VALID if covered else Verdict.ORIGIN


def load(gateway: str, case: str) -> Sample:
    place = SAMPLES / gateway / case
    headers = place / "headers.json"
    return Sample(
        (place / "body.json").read_bytes(),
        json.loads(headers.read_bytes()) if headers.exists() else {},
        json.loads((place / "expected.json").read_bytes()),
    )


def check(sample: Sample, gateway: Gateway) -> None:
    if "raises" in sample.expected:
        return _check_error(sample, gateway)
    if "request" in sample.expected:
        return _check_request(sample, gateway)
    found = sample.read(gateway)
    for name in FIELDS:
        if name in sample.expected:
            assert getattr(found, name) == sample.expected[name], name
    if "images" in sample.expected:
        assert isinstance(found, Completion)
        assert [[image.url, image.seed] for image in found.images] == sample.expected["images"]
        places = sample.expected.get("places", list(range(len(found.images))))
        assert [image.index for image in found.images] == places
        withheld = [[one.index, one.reason] for one in found.withheld]
        assert withheld == sample.expected.get("withheld", [])
    if "signature" in sample.expected:
        now_s, keys = sample.expected.get("now_s", 0), keys_of(gateway.name.replace("-", "_"))
        verdict = gateway.verify(sample.headers, sample.body, now_s=now_s, keys=keys)
        assert verdict == sample.expected["signature"]
    return None


def adapter(cls: type[A], key: str, **settings: Any) -> A:
    """Return an adapter with a key and settings, which are validated like those of the service."""
    return cls(settings_model(cls.table, cls.Settings)(api_key=key, **settings))


def a_job(gateway: str = "apiframe", **request: Any) -> Job:
    asked = JobRequest(**{"model": "imagen-4-fast", "prompt": "a red kite", **request})
    return Job("019aa000-0000-7000-8000-000000000001", gateway, Status.QUEUED, asked, 0, 0, None)


def _check_request(sample: Sample, gateway: Gateway) -> None:
    job = a_job(gateway.name, **sample.expected["asked"])
    assert (gateway.unsupported(job.request), gateway.faults(job.request)) == ({}, [])
    request = gateway.submit_request(job, sample.expected.get("callback"))
    assert f"{request.method} {request.url}" == sample.expected["request"]
    assert request.headers.items() >= sample.headers.items()
    assert sent(request) == json.loads(sample.body)


def _check_error(sample: Sample, gateway: Gateway) -> None:
    with pytest.raises(DarkroomError) as caught:
        sample.read(gateway)
    error = caught.value
    assert error.code == sample.expected["raises"]
    assert sample.expected.get("says", "") in str(error)
    for name in ("details", "request_id", "retry_after_s"):
        if name in sample.expected:
            assert getattr(error, name) == sample.expected[name], name
