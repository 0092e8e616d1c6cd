"""A job that succeeded, and whose images its gateway has deleted by the time that it is asked."""

from pathlib import Path

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.support.live import started


def test_it_ends_and_says_so(s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path) -> None:
    gateways = {"replicate": sandbox.settings()["replicate"]}
    job = {"gateway": "replicate", "model": "black-forest-labs/flux-schnell", "prompt": "a red kite"}
    with started(s3_server, tmp_path, sandbox=sandbox, gateways=gateways, callbacks=False) as live:
        done = live.make(job, fault="data_removed")
        assert (done["status"], done["error"]["code"]) == ("failed", "result_expired")
        assert done["error"]["at_fault"] == "gateway"
        again = live.http.post(f"/v1/jobs/{done['id']}/retry", json={"resubmit": True})
        assert again.status_code == 200, again.text
        assert live.http.get("/v1/status").json()["balanced"] is True
