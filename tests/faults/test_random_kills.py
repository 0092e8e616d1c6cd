"""`kill -9` at moments that nobody chose, again and again, while work comes in without a pause.

Set DARKROOM_FAULTS_KILLS for more kills, and DARKROOM_FAULTS_SEED for the moments of an earlier run.
"""

import os
import random
import secrets
import shutil
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from time import monotonic

from receiver.demo.seaweedfs import EmbeddedS3
from tests.faults.forks import Forks
from tests.faults.judge import UNCONFIRMED, Verdict, judge
from tests.faults.scenes import Report
from tests.faults.world import MIXED, World, world

KILLS = int(os.environ.get("DARKROOM_FAULTS_KILLS", "80"))
WORLDS = 4
"""So many services are killed side by side, each with its own ledger: most of a restart is waiting."""
LONGEST_LIFE_S = 0.6
PAUSE_S = (0.05, 0.25)
"""Between two submissions of one client."""


def test_any_number_of_kills_loses_and_doubles_nothing(
    s3_server: EmbeddedS3, forks: Forks, report: Report, tmp_path: Path
) -> None:
    seed = int(os.environ.get("DARKROOM_FAULTS_SEED") or secrets.randbelow(2**32))
    print(f"DARKROOM_FAULTS_SEED={seed} chooses the same moments again")

    def one(number: int) -> tuple[Verdict, Counter[str]]:
        with world(s3_server, forks, tmp_path / str(number)) as here:
            if number == 0:  # one of them where no callback can come
                del here.variables["DARKROOM_PUBLIC_URL"]
            return _killed_often(here, random.Random(seed + number), KILLS // WORLDS)

    with ThreadPoolExecutor(WORLDS) as pool:
        ended = list(pool.map(one, range(WORLDS)))
    in_hand: Counter[str] = sum((seen for _, seen in ended), Counter())
    print(f"in hand when killed: {dict(in_hand)}")
    assert in_hand["kills"] == KILLS
    for verdict, _ in ended:
        report(f"kill -9 at {KILLS} random moments under load", verdict)
        # No job failed but those of which nobody can know whether API in One took them.
        assert set(verdict.failed) <= {UNCONFIRMED}, verdict.failed
    # Otherwise the moments were not what they are meant to be.
    assert in_hand["kills in the middle of work"] > KILLS / 4, in_hand


def _killed_often(here: World, chance: random.Random, kills: int) -> tuple[Verdict, Counter[str]]:
    seen = Counter[str]()
    began = monotonic()
    here.start()
    # Where a start takes long, everything does: a life must have time for some work, and not be given more.
    longest_s = max(LONGEST_LIFE_S, monotonic() - began)
    shortest, longest = (pause * longest_s / LONGEST_LIFE_S for pause in PAUSE_S)
    with here.submitting(chance, MIXED, (shortest, longest), clients=2):
        for number in range(kills):
            assert not here.child.ended(chance.uniform(0, longest_s)), here.said()
            here.kill()
            seen += _in_hand(here)
            if number % 5 == 0:  # now and then it does not even come up
                here.start(expect_up=False)
                assert not here.child.ended(chance.uniform(0, 0.3)), here.said()
                here.kill()
            here.start()
    here.settle()
    return judge(here), seen


def _in_hand(here: World) -> Counter[str]:
    """Where the jobs were that the dead process held; read from a copy, so that recovery is the service's."""
    copy = here.folder / "copy.sqlite3"
    for suffix in ("", "-wal"):
        if (file := Path(f"{here.ledger}{suffix}")).exists():
            shutil.copy(file, f"{copy}{suffix}")
    query = "SELECT status, count(*) FROM jobs WHERE leased_by LIKE '%.' || ? || '.%' GROUP BY status"
    with closing(sqlite3.connect(copy)) as connection:
        held = Counter(dict(connection.execute(query, (here.child.pid,)).fetchall()))
    return Counter({"kills": 1, "kills in the middle of work": int(held.total() > 0)}) + held
