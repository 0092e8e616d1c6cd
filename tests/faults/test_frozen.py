"""Two services on one ledger, of which one stands still until the other has taken its work over, and goes on.

That is what a machine that swaps, a paused container or a stopped virtual machine looks like from outside:
a worker that comes back believes for a moment that it still holds its jobs.
"""

import random
import secrets
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from receiver.demo.seaweedfs import EmbeddedS3
from tests.faults.forks import Forks
from tests.faults.judge import Verdict, judge
from tests.faults.scenes import Report
from tests.faults.world import SANDBOX, World, world
from tests.support.processes import free_port

FREEZES = 24
WORLDS = 4
STILL_S = 2.0
"""Longer than a lease."""
FAULTS = (None, None, None, "early", {"fault": "expired_link", "times": 1}, "no_callback")


def test_a_frozen_service_that_goes_on_doubles_nothing(
    s3_server: EmbeddedS3, forks: Forks, report: Report, tmp_path: Path
) -> None:
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")

    def one(number: int) -> tuple[Verdict, int]:
        config = replace(SANDBOX, callback_timeout_s=0.5)
        with world(s3_server, forks, tmp_path / str(number), sandbox=config) as here:
            verdict = _frozen_often(here, random.Random(seed + number), FREEZES // WORLDS)
            return verdict, here.log.read_text().count("job went to another worker")

    with ThreadPoolExecutor(WORLDS) as pool:
        ended = list(pool.map(one, range(WORLDS)))
    for verdict, _ in ended:
        report(f"one of two services frozen past its leases, {FREEZES} times", verdict)
    assert sum(lost_leases for _, lost_leases in ended) > 0, "nothing was in hand whenever one was frozen"


def _frozen_often(here: World, chance: random.Random, times: int) -> Verdict:
    here.start()
    # The second one takes no part in HTTP: callbacks and submissions come to the first.
    other = here.fork(port=free_port())
    with here.submitting(chance, FAULTS, (0.02, 0.1)):
        for number in range(times):
            frozen = (here.child, other)[number % 2]
            assert not frozen.ended(chance.uniform(0.2, 0.6)), here.said()
            frozen.signal(signal.SIGSTOP)
            assert not frozen.ended(STILL_S), here.said()
            frozen.signal(signal.SIGCONT)
    here.settle()
    return judge(here)
