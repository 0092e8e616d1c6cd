"""PgBouncer between the replicas and PostgreSQL is killed and comes back, and work goes on."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from tests.faults.forks import Forks
from tests.faults.judge import UNCONFIRMED, judge
from tests.faults.scenes import Report
from tests.faults.test_replicas import replicated
from tests.faults.world import MIXED, World
from tests.support.pgbouncer import pooling
from tests.support.postgres import serving

JOBS = 48
CLIENTS = 4
AWAY_S = 0.5
SIZES = {"transaction": "3", "session": "120"}
"""Sessions in the pool: for transactions far fewer than the replicas ask for."""


@pytest.mark.parametrize("mode", ["transaction", pytest.param("session", marks=pytest.mark.exhaustive)])
def test_a_pooler_that_is_killed_loses_nothing(
    s3_server: EmbeddedS3, forks: Forks, report: Report, tmp_path: Path, mode: str
) -> None:
    with (
        serving() as server,
        pooling(server, pool_mode=mode, default_pool_size=SIZES[mode], max_client_conn="400") as bouncer,
        replicated(s3_server, forks, tmp_path, bouncer.url(server.create())) as (here, replicas),
    ):
        replicas.start()
        never = threading.Event()
        with ThreadPoolExecutor(CLIENTS) as clients:
            going = [clients.submit(_submit, here, random.Random(seed)) for seed in range(CLIENTS)]
            for at in (JOBS // 3, 2 * JOBS // 3):
                while len(here.accepted) < at and not all(one.done() for one in going):
                    never.wait(0.02)
                bouncer.kill()
                never.wait(AWAY_S)
                bouncer.start()
            for one in going:
                one.result()
        here.settle()
        verdict = judge(here)
    report(f"kill -9 of PgBouncer in {mode} mode, twice", verdict)
    assert verdict.jobs == JOBS
    assert set(verdict.failed) <= {UNCONFIRMED}, verdict.failed


def _submit(here: World, chance: random.Random) -> None:
    for _ in range(JOBS // CLIENTS):
        here.submit(chance.choice(["apiframe", "api-in-one"]), fault=chance.choice(MIXED))
