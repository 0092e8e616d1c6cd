"""A burst of prompts on a sandbox that draws every picture in full."""

import time
from collections import Counter
from pathlib import Path

import pytest

from receiver.client import Darkroom
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxConfig, SandboxServer
from tests.support.live import started

MANY = 200
WITHIN_S = 900
"""Drawing takes a minute of processor time, and a machine may be busy with more."""


@pytest.mark.exhaustive
def test_two_hundred_prompts_at_once_pause_nothing(s3_server: EmbeddedS3, tmp_path: Path) -> None:
    begun = time.monotonic()
    with (
        SandboxServer(SandboxConfig()) as sandbox,
        started(s3_server, tmp_path, sandbox=sandbox) as live,
        Darkroom(live.url) as darkroom,
    ):
        rows = [_row(number) for number in range(MANY)]
        parts = (rows[: MANY // 2], rows[MANY // 2 :])
        accepted = [result.job for part in parts for result in darkroom.submit_batch(part)]
        done = [
            job and darkroom.wait(job.id, timeout_s=WITHIN_S - (time.monotonic() - begun)) for job in accepted
        ]
        assert Counter(job and job.status for job in done) == {"archived": MANY}
        jobs = [live.job(job.id) for job in darkroom.jobs(limit=None)]
    tried = Counter(attempt.code for job in jobs for attempt in job.attempt_log)
    assert set(tried) <= {"taken", "running", "succeeded"}, "something failed, was paused, or was limited"
    print(f"{MANY} prompts archived in {time.monotonic() - begun:.0f} s")


def _row(number: int) -> dict[str, str]:
    names = {"gateway": "apiframe", "model": "imagen-4-fast"}
    if number % 2:
        names = {"gateway": "api-in-one", "model": "imagen4"}
    return names | {"prompt": f"a red kite over harbour number {number}"}
