"""The OpenAPI document: it is valid, it is complete, and what the service answers is what it says."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from schemathesis.core.failures import Failure

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.http.routing import Served
from receiver.sandbox import SandboxServer
from storage.models import Status
from tests.support.live import IMAGEN, ULTRA, Live, started
from tests.support.running import environment

READER, SUBMITTER = "reader-reader-reader", "submit-submit-submit"
TOKENS = [f"r:read:{READER}", f"s:submit:{SUBMITTER}"]
CALLBACK = "POST /callbacks/{gateway}/{token}"
OURSELVES = "GET /openapi.json"


def document(live: Live) -> dict[str, Any]:
    answer = live.http.get("/openapi.json", headers={"authorization": ""})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = answer.json()
    return found


def operations(told: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_it_is_valid_openapi(live: Live) -> None:
    told = document(live)
    assert told["openapi"].startswith("3.1")
    schemathesis.openapi.from_dict(told).validate()


def test_it_has_every_route_and_no_other(live: Live) -> None:
    served = {
        f"{method} {route.path_format}"
        for route in live.service.asgi(work=False).routes
        if isinstance(route, Served)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert {at for at, _ in operations(document(live))} == served


def test_every_operation_says_what_it_does(live: Live) -> None:
    told = list(operations(document(live)))
    assert len({operation["operationId"] for _, operation in told}) == len(told)
    for at, operation in told:
        assert operation["summary"], at
        assert "500" in operation["responses"], at
        assert "401" in operation["responses"] or "security" not in operation, at
        for parameter in operation.get("parameters", ()):
            assert parameter["in"] == "path" or parameter["description"], (at, parameter["name"])


def test_the_scope_decides_what_can_be_forbidden(live: Live) -> None:
    forbidden = {at for at, operation in operations(document(live)) if "403" in operation["responses"]}
    assert forbidden == {
        "POST /v1/jobs", "POST /v1/jobs/batch", "POST /v1/jobs/{id}/cancel", "POST /v1/jobs/{id}/retry",
        "POST /v1/notifications/{id}/replay", "POST /v1/notifications/test",
    }  # fmt: skip


def test_only_what_must_be_open_is_open(live: Live) -> None:
    unguarded = {at for at, operation in operations(document(live)) if "security" not in operation}
    open_to_all = {"GET /docs", "GET /docs.css", "GET /healthz", "GET /readyz"}
    assert unguarded == {CALLBACK, CALLBACK.replace("POST", "GET"), OURSELVES, *open_to_all}


def test_it_asks_for_a_token_where_the_service_does(live: Live, filled: Filled) -> None:
    told = dict(operations(document(live)))
    assert told["GET /v1/jobs"]["security"] == [{}, {"token": ["read"]}]
    with filled.served(api_tokens=TOKENS) as guarded:
        told = dict(operations(document(guarded)))
    assert told["GET /v1/jobs"]["security"] == [{"token": ["read"]}]
    assert "security" not in told["GET /healthz"]


def test_its_statuses_are_those_of_the_ledger(live: Live) -> None:
    schemas = document(live)["components"]["schemas"]
    assert schemas["Status"]["enum"] == list(Status)
    assert set(Status) <= set(schemas["JobCounts"]["properties"])


@pytest.mark.parametrize("body", ["SubmitBody", "BatchBody", "RetryBody"])
def test_what_may_be_left_out_of_a_request_has_no_default(live: Live, body: str) -> None:
    # openapi-typescript makes a field with a default required.
    schemas = document(live)["components"]["schemas"]
    assert not [name for name, field in schemas[body]["properties"].items() if "default" in field]
    tags = schemas["SubmitBody"]["properties"]["tags"]
    assert (tags["additionalProperties"]["type"], "patternProperties" in tags) == ("string", False)


def test_real_answers_are_as_described(live: Live) -> None:
    job = live.make(ULTRA, num_images=2, tags={"k": "v"})
    assert {event["event"] for event in job["timeline"]} == {"moved", "attempt", "delivery", "stored"}
    lost = live.make(IMAGEN, fault="failed")
    output = job["outputs"][0]["id"]
    told = closed(document(live))
    for path, urls in {
        "/v1/jobs": ["/v1/jobs", "/v1/jobs?limit=1", "/v1/jobs?limit=0"],
        "/v1/jobs/{id}": [f"/v1/jobs/{job['id']}", f"/v1/jobs/{lost['id']}", "/v1/jobs/nobody"],
        "/v1/outputs": ["/v1/outputs", "/v1/outputs?limit=1", "/v1/outputs?colour=red"],
        "/v1/outputs/{id}": [f"/v1/outputs/{output}", f"/v1/outputs/{job['id']}.7"],
        "/v1/outputs/{id}/image": [f"/v1/outputs/{output}/image", f"/v1/outputs/{output}/image?stream=1"],
        "/v1/outputs/{id}/thumbnail": [f"/v1/outputs/{output}/thumbnail", "/v1/outputs/x/thumbnail"],
        "/v1/outputs/{id}/record": [f"/v1/outputs/{output}/record", f"/v1/outputs/{job['id']}.7/record"],
        "/v1/notifications": ["/v1/notifications", "/v1/notifications?limit=1", "/v1/notifications?x=1"],
        "/v1/status": ["/v1/status", "/v1/status?x=1"],
        "/v1/gateways": ["/v1/gateways"],
        "/v1/events": ["/v1/events?wait=0&since=0", "/v1/events?wait=0&since=99999999", "/v1/events?wait=x"],
        "/metrics": ["/metrics"],
        "/healthz": ["/healthz"],
        "/readyz": ["/readyz"],
        "/openapi.json": ["/openapi.json"],
    }.items():
        for url in urls:
            held_to(told, path, live.http.get(url))


def test_a_field_that_is_not_described_would_be_seen(live: Live) -> None:
    live.submit(IMAGEN)
    told = closed(document(live))
    del told["components"]["schemas"]["Job"]["properties"]["found_by"]
    told["components"]["schemas"]["Job"]["required"].remove("found_by")
    with pytest.raises(Failure, match="found_by"):
        held_to(told, "/v1/jobs", live.http.get("/v1/jobs"))


def held_to(told: dict[str, Any], path: str, answer: httpx.Response) -> None:
    """Raise unless the document describes an answer to `GET`."""
    described = told["paths"][path]["get"]["responses"][str(answer.status_code)]
    kinds = described.get("content", {})
    assert not kinds or answer.headers["content-type"].partition(";")[0] in kinds
    schemathesis.openapi.from_dict(told)[path]["GET"].validate_response(answer)


def closed(told: dict[str, Any]) -> dict[str, Any]:
    """The document with every object closed: answers may have the fields that it names, and no more."""
    for schema in told["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return told


@dataclass(frozen=True)
class Filled:
    """A ledger and a bucket that hold finished jobs, to be served without a worker."""

    s3: EmbeddedS3
    sandbox: SandboxServer
    folder: Path
    bucket: str
    failed: str = ""
    """The id of a job that failed at its gateway, of which somebody is to be notified."""

    @contextmanager
    def served(self, *, work: bool = False, **overrides: Any) -> Iterator[Live]:
        with started(
            self.s3, self.folder, sandbox=self.sandbox, s3={"bucket": self.bucket}, work=work, **overrides
        ) as live:
            yield live


@pytest.fixture(scope="module")
def filled(s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    ours = Filled(s3_server, sandbox, tmp_path_factory.mktemp("filled"), f"t-{secrets.token_hex(6)}")
    with ours.served(work=True) as live:
        live.make(IMAGEN, tags={"k": "v"})
        live.make(ULTRA, num_images=2)
        failed = live.make(IMAGEN, fault="failed", notify_url="https://nobody.invalid/")
    return replace(ours, failed=failed["id"])


SETTINGS = """
seed = {seed}
max-redirects = 0  # an answer that leads elsewhere is the answer
continue-on-failure = true
[generation]
max-examples = {examples}
database = "none"
no-shrink = true
[parameters]
"query.wait" = 0.05
[[operations]]
include-operation-id = "submit_job"
# The document cannot say what each gateway takes.
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "409", "422"]
[[operations]]
include-operation-id = "submit_batch"
# A job that is wrong does not make the batch wrong.
checks.negative_data_rejection.expected-statuses = ["200", "4xx"]
[[operations]]
include-operation-id = "test_notification"
# Nor whether the settings say where to, where the body does not.
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "422"]
[[operations]]
include-operation-id = "take_callback"
# Nor what each gateway sends.
checks.positive_data_acceptance.expected-statuses = ["200", "400", "401", "404", "409"]
parameters = {{ "path.gateway" = "{gateway}", "path.token" = "{token}" }}
[[operations]]
include-operation-id = "probe_callback"
parameters = {{ "path.gateway" = "{gateway}", "path.token" = "{token}" }}
[[operations]]
include-operation-id = "show_usage"
# Nor which parameters go together.
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "422"]
[[operations]]
include-operation-id = "retry_job"
parameters = {{ "path.id" = "{failed}" }}
[[operations]]
include-operation-id = "show_notification"
parameters = {{ "path.id" = "msg_{failed}" }}
[[operations]]
include-operation-id = "replay_notification"
parameters = {{ "path.id" = "{failed}.1" }}
"""
"""The settings of a run; every other check has its usual bounds."""


def run(live: Live, folder: Path, *, failed: str, examples: int) -> Any:
    """Run schemathesis over the document of a service, with every check that it has.

    Callbacks go to a job that waits for one, and retries to a job that failed.
    """
    waiting = live.http.post("/v1/jobs", json=IMAGEN).json()["id"]
    gateway, token = httpx.URL(live.callback_url(waiting)).path.split("/")[-2:]
    settings = SETTINGS.format(seed=1, examples=examples, gateway=gateway, token=token, failed=failed)
    (folder / "settings.toml").write_text(settings)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", "settings.toml", "run"),
            *("--checks", "all", "--no-color", "--report", "json", "--report-json-path", "report.json"),
            f"{live.url}/openapi.json",
        ],
        cwd=folder,
        env=environment(NO_PROXY="*"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "report.json").read_text())
    assert (report["failures"], report["errors"], report["stop_reason"]) == ([], [], "completed")
    # It leaves the operation out that it has the document from.
    assert report["operations"]["tested"] == len(list(operations(document(live)))) - 1
    return report


def accepted(report: Any) -> set[str]:
    """The operations that took at least one request."""
    rates = report["valid_rates"].items()
    return {at for at, phases in rates if any(rate["accepted"] for rate in phases.values())}


@pytest.mark.exhaustive
def test_schemathesis_finds_nothing(filled: Filled, tmp_path: Path) -> None:
    with filled.served(ready={"no_worker": 3600}) as live:
        report = run(live, tmp_path, failed=filled.failed, examples=12)
        assert accepted(report) == {at for at, _ in operations(document(live))} - {CALLBACK, OURSELVES}
        assert report["test_cases"]["generated"] > 400
