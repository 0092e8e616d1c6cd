"""What an operator sees of the process: its start, its stop, its size."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxConfig, SandboxServer
from tests.support.live import IMAGEN, ULTRA
from tests.support.processes import MIB, environment, free_port, serving, watch_rss


def test_an_idle_service_stays_small(s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path) -> None:
    """What its two processes share counts once; what only takes callbacks has no more than that needs."""
    beside = {"DARKROOM_WORKER__PROCESSES": "1"}
    variables = environment(s3_server, sandbox, tmp_path, free_port(), **beside)
    with serving(variables, tmp_path) as process:
        assert process.make(IMAGEN)["status"] == "archived"
        assert process.pss() < 150 * MIB
    with serving(variables, tmp_path, "--only", "callbacks") as process:
        assert process.pss() < 70 * MIB


@pytest.mark.exhaustive
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_restart_finishes_what_a_stop_left_open(s3_server: EmbeddedS3, tmp_path: Path, sig: int) -> None:
    port = free_port()
    with SandboxServer(SandboxConfig(latency_s=(0.2, 1.5), image_px=64)) as sandbox:
        # Callbacks that find nobody are not sent for ever, so some of these are found by polling.
        variables = environment(s3_server, sandbox, tmp_path, port, DARKROOM_WORKER__FIRST_POLL="3")
        with serving(variables, tmp_path) as process:
            jobs = [process.submit(IMAGEN | {"prompt": f"open work {number}"}) for number in range(12)]
            slow = {"sandbox": {"fault": "slow_image", "delay_s": 20}}
            jobs.append(process.submit(ULTRA, params=slow))
            process.job(jobs[0], wait=60)
            code, took_s = process.terminate(sig)
        assert code == 0, process.log.read_text()
        assert took_s < 10
        assert "Traceback" not in process.log.read_text()
        assert all(json.loads(line)["event"] for line in process.log.read_text().splitlines())
        with serving(variables, tmp_path) as process:
            ended = [process.job(job_id, wait=60) for job_id in jobs]
            counts = process.get("/v1/status")
    assert [job["status"] for job in ended] == ["archived"] * len(jobs)
    assert counts["balanced"]
    assert counts["accepted"] == counts["archived"] == len(jobs)
    made = [report.idempotency_key for report in sandbox.jobs() if report.gateway == "apiframe"]
    assert sorted(key for key in made if key) == sorted(jobs[:-1]), "each was made once"


@pytest.mark.exhaustive
def test_memory_stays_flat_with_large_images(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    variables = environment(s3_server, sandbox, tmp_path, free_port(), DARKROOM_WORKER__CONCURRENCY="16")
    large = {"sandbox": {"fault": "bytes", "bytes": 50 * MIB}, "output_format": "png"}
    with serving(variables, tmp_path) as process:
        jobs = [process.submit(IMAGEN | {"prompt": f"large {number}"}, params=large) for number in range(16)]
        ended: list[dict[str, Any]] = []
        most = watch_rss(process, lambda: ended.extend(process.job(job_id, wait=60) for job_id in jobs))
        sizes = [
            output["bytes"]
            for job in ended
            for output in process.get("/v1/outputs", job=job["id"])["outputs"]
        ]
    assert [job["status"] for job in ended] == ["archived"] * 16, [job["error"] for job in ended]
    assert min(sizes) > 49 * MIB
    assert most < 300 * MIB, f"{most / MIB:.0f} MiB"
