"""`kill -9` at every step that lasts, and at moments that nobody chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from receiver.embedded import EmbeddedS3
from tests.faults.forks import Forks
from tests.faults.judge import judge
from tests.faults.points import Kill
from tests.faults.table import Table
from tests.faults.world import World, world

GATEWAYS = ("apiframe", "api-in-one")

STEPS: list[tuple[Kill, object]] = [
    (Kill("add_job", "commit", 2), None),
    (Kill("add_job", "after", 2), None),
    (Kill("claim", "after"), None),
    (Kill("move:submitting", "commit"), None),
    (Kill("move:submitting", "after"), None),
    (Kill("send:submit", "wire", 2), None),
    (Kill("send:submit", "after", 2), None),
    (Kill("move:running", "commit", 2), None),
    (Kill("move:running", "after", 2), None),
    (Kill("record", "before"), None),
    (Kill("record", "commit"), None),
    (Kill("record", "after"), None),
    (Kill("send:poll", "wire"), "no_callback"),
    (Kill("send:poll", "after"), "no_callback"),
    (Kill("move:ready", "commit"), None),
    (Kill("move:ready", "after"), None),
    (Kill("put:image", "before"), None),
    (Kill("put:image", "after"), None),
    (Kill("add_output", "commit"), None),
    (Kill("add_output", "after"), None),
    (Kill("put:record", "before"), None),
    (Kill("put:record", "after"), None),
    (Kill("move:archived", "commit"), None),
    (Kill("move:archived", "after"), None),
    (Kill("move:queued", "commit"), {"fault": "rate_limited", "retry_after_s": 0}),
    (Kill("move:queued", "after"), {"fault": "rate_limited", "retry_after_s": 0}),
    (Kill("postpone", "commit"), {"fault": "expired_link", "times": 2}),
    (Kill("postpone", "after"), {"fault": "expired_link", "times": 2}),
    (Kill("move:failed", "commit"), "failed"),
    (Kill("move:failed", "after"), "failed"),
]
"""Each step that lasts in the life of a job, and the sandbox's fault that leads there where a usual job does not."""

STARTS = [
    Kill("migrate", "before"),
    Kill("migrate", "commit"),
    Kill("migrate", "after"),
    Kill("put:probe", "after"),
]


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize(("kill", "fault"), STEPS, ids=[str(kill) for kill, _ in STEPS])
def test_a_kill_at_a_step_loses_and_doubles_nothing(
    s3_server: EmbeddedS3, forks: Forks, table: Table, tmp_path: Path, gateway: str, kill: Kill, fault: object
) -> None:
    with world(s3_server, forks, tmp_path) as here:
        here.start(kill)
        for _ in range(3):
            here.submit_meanwhile(gateway, fault=fault)
        here.await_death()
        here.start()
        here.settle()
        table.add(f"kill -9 at {len(STEPS)} steps, {gateway}", judge(here))


@pytest.mark.parametrize("kill", STARTS, ids=str)
def test_a_kill_during_the_first_start_leaves_nothing_that_is_in_the_way(
    s3_server: EmbeddedS3, forks: Forks, table: Table, tmp_path: Path, kill: Kill
) -> None:
    with world(s3_server, forks, tmp_path) as here:
        here.start(kill, expect_up=False)
        here.await_death()
        here.start()
        here.submit("apiframe")
        here.settle()
        table.add("kill -9 during the first start", judge(here))
