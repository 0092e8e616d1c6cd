"""Four replicas on one PostgreSQL: they are killed at random, PostgreSQL is restarted, and work goes on.

Set DARKROOM_FAULTS_REPLICA_JOBS for more jobs, and DARKROOM_FAULTS_SEED for the moments of an earlier run.
"""

import json
import os
import random
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from receiver.demo.seaweedfs import EmbeddedS3
from tests.faults.forks import Child, Forks
from tests.faults.judge import UNCONFIRMED, judge
from tests.faults.proxy import Proxy
from tests.faults.scenes import Report
from tests.faults.world import MIXED, World, world
from tests.support.postgres import Postgres, serving
from tests.support.processes import await_answer, free_port

REPLICAS = 4
JOBS = int(os.environ.get("DARKROOM_FAULTS_REPLICA_JOBS", "60"))
CLIENTS = 4
BETWEEN_KILLS_S = (0.3, 1.2)
DEAD_S = (0.0, 1.0)
"""How long a replica stays dead."""
AWAY_S = 0.5
"""How long PostgreSQL stays away."""
RESTARTS = ("fast", "immediate")
"""How PostgreSQL is stopped: told to break off what is open, and as in a crash."""


class Replicas:
    def __init__(self, here: World, ports: list[int]) -> None:
        self._here = here
        self._ports = ports
        self._children: list[Child] = []

    def start(self) -> None:
        """Start all of them together: one makes the tables, the others wait for it."""
        self._children = [self._here.fork(port=port) for port in self._ports]
        for port in self._ports:
            await_answer(f"http://127.0.0.1:{port}/healthz")
        self._here.up.set()

    def kill_one(self, chance: random.Random, dead: threading.Event) -> None:
        """`kill -9` of one, and after a while another one takes its place."""
        number = chance.randrange(REPLICAS)
        self._children[number].kill()
        dead.wait(chance.uniform(*DEAD_S))
        self._children[number] = self._here.fork(port=self._ports[number])


@contextmanager
def replicated(s3: EmbeddedS3, forks: Forks, folder: Path, ledger: str) -> Iterator[tuple[World, Replicas]]:
    """A world on PostgreSQL, whose replicas stand behind a proxy; nothing runs yet."""
    ports = [free_port() for _ in range(REPLICAS)]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    with Proxy(*urls) as front, world(s3, forks, folder, ledger=ledger) as here:
        here.variables |= {
            "DARKROOM_WORKER__CONCURRENCY": "4",
            "DARKROOM_PORT": str(front.port),
            "DARKROOM_PUBLIC_URL": front.url,
        }
        here.lease_ms = 3000
        yield here, Replicas(here, ports)


def test_killed_replicas_lose_and_double_nothing(
    s3_server: EmbeddedS3, forks: Forks, report: Report, tmp_path: Path
) -> None:
    seed = int(os.environ.get("DARKROOM_FAULTS_SEED") or secrets.randbelow(2**32))
    print(f"DARKROOM_FAULTS_SEED={seed} chooses the same moments again")
    with (
        serving() as server,
        replicated(s3_server, forks, tmp_path, server.url(server.create())) as (here, replicas),
    ):
        replicas.start()
        kills = _go_wrong(here, replicas, server, random.Random(seed))
        here.settle(90 + JOBS / 4)
        verdict = judge(here)
        told = [json.loads(line) for line in here.log.read_text().splitlines() if line.startswith("{")]
    refused = [one for one in told if "/callbacks/" in one.get("path", "")]
    answers = Counter(one["status"] for one in refused)
    print(f"{kills} kills; callbacks were answered {dict(answers)}; failed: {dict(verdict.failed)}")
    report(f"kill -9 of {REPLICAS} replicas, and two restarts of PostgreSQL", verdict)
    assert verdict.jobs == JOBS
    # No job failed but those of which nobody can know whether API in One took them.
    assert set(verdict.failed) <= {UNCONFIRMED}, verdict.failed
    assert kills >= 3
    assert answers[503] > 0, "no callback came while PostgreSQL was away"


def _go_wrong(here: World, replicas: Replicas, server: Postgres, chance: random.Random) -> int:
    """Submit, and meanwhile kill and restart; answers how many kills there were."""
    over, kills, away = threading.Event(), 0, list(RESTARTS)
    at = [JOBS // 3, 2 * JOBS // 3]
    # A seed for each client: their turns are nobody's to choose.
    seeds = [chance.random() for _ in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as clients:
        share = [JOBS // CLIENTS + (n < JOBS % CLIENTS) for n in range(CLIENTS)]
        pairs = zip(seeds, share, strict=True)
        going = [clients.submit(_submit, here, random.Random(seed), number) for seed, number in pairs]
        while not all(one.done() for one in going) or away or kills < 3:
            over.wait(chance.uniform(*BETWEEN_KILLS_S))
            replicas.kill_one(chance, over)
            kills += 1
            if away and len(here.accepted) >= at[len(RESTARTS) - len(away)]:
                server.stop(away.pop(0))
                over.wait(AWAY_S)
                server.start()
        for one in going:
            one.result()
    return kills


def _submit(here: World, chance: random.Random, number: int) -> None:
    for _ in range(number):
        here.submit(chance.choice(["apiframe", "api-in-one"]), fault=chance.choice(MIXED))
