"""Cancelling a job that its gateway has: the gateway is told to, and what it then says counts."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.support.live import IMAGEN, QUICK, Live, started
from tests.support.processes import until

SCHNELL = {"gateway": "replicate", "model": "black-forest-labs/flux-schnell", "prompt": "a red kite"}


@pytest.fixture(scope="module", params=[True, False], ids=["callbacks", "polled"])
def idle(
    request: pytest.FixtureRequest, s3_server: EmbeddedS3, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """A service whose gateways take a minute for each job."""
    with SandboxServer(replace(QUICK, latency_s=(60, 60))) as sandbox:
        gateways: dict[str, Any] = {"replicate": sandbox.settings()["replicate"]}
        folder = tmp_path_factory.mktemp("idle")
        with started(s3_server, folder, sandbox=sandbox, gateways=gateways, callbacks=request.param) as live:
            yield live


def running(live: Live, body: dict[str, Any]) -> str:
    job_id: str = live.submit(body)["id"]
    until(lambda: live.job(job_id).status == "running")
    return job_id


def test_a_running_job_is_cancelled_at_its_gateway(idle: Live) -> None:
    job_id = running(idle, SCHNELL)
    answer = idle.http.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 200, answer.text
    job = idle.finish(job_id)
    assert (job["status"], job["error"]) == ("cancelled", None)
    theirs = idle.sandbox.job(job["gateway_job_id"])
    assert theirs.status == "CANCELLED"
    assert idle.http.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "cancelled"
    assert idle.http.get("/v1/status").json()["balanced"] is True


def test_a_gateway_without_a_way_to_is_not_asked(idle: Live) -> None:
    job_id = running(idle, IMAGEN)
    answer = idle.http.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_cancellable")
    assert "no way to cancel" in answer.json()["detail"]
    assert idle.job(job_id).status == "running"
