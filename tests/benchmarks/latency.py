"""How soon an image is archived after its callback, when nothing else is to be done.

One job at a time: from the first byte of the callback until somebody who waits for the job over HTTP
(`?wait=`) is told that it is archived. Beside it stands the bare copy of the same image, by httpx and boto3.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from time import monotonic

import httpx

from storage.ledger.database import Database
from tests.benchmarks import ledgers
from tests.benchmarks.figures import Figure, Target, percentile
from tests.benchmarks.grounds import DATABASES, Grounds, Kind, port_of
from tests.benchmarks.load import Line
from tests.benchmarks.plain import Copier

IMAGES = 100
WARM = 10
ROUNDS = 2
ASKED_S = 0.05

SOON = Target(most=3)
"""Of what the bare copy takes."""
AT_WORST = Target(most=250, of="figure")
"""In milliseconds."""


def run(grounds: Grounds) -> list[Figure]:
    links = grounds.images.links(8 if grounds.quick else IMAGES + WARM)
    warm = len(links) // 10
    copied: list[float] = []
    waited: dict[Kind, list[float]] = {kind: [] for kind in DATABASES}
    for _ in grounds.rounds(ROUNDS):
        copied += copies(grounds, links)[warm:]
        for kind in DATABASES:
            waited[kind] += waits(grounds, kind, links)[warm:]
    figures = []
    for kind, took in waited.items():
        for percent, target in ((50, SOON), (99, AT_WORST)):
            ours, theirs = percentile(took, percent), percentile(copied, percent)
            what = f"callback to archived, p{percent}, {kind}"
            figures.append(Figure("latency", what, ours, "ms", "a bare copy", theirs, target, took))
    return figures


def waits(grounds: Grounds, kind: Kind, links: Sequence[str]) -> list[float]:
    """Milliseconds from each callback until its job is archived, one after the other."""
    ledger = grounds.new_ledger(kind)
    database = Database.open(ledger)
    begun = ledgers.begin(database, links)
    database.close()
    with (
        grounds.serving(ledger) as process,
        httpx.Client(base_url=process.url, trust_env=False) as http,
        ThreadPoolExecutor(1) as waiter,
    ):
        requests = ledgers.callbacks(port_of(process), begun)
        pairs = zip(begun, requests, strict=True)
        found = []
        for job, request in pairs:
            # Of its own, made before: one that rests for long is closed by the server.
            with closing(Line(port_of(process))) as line:
                found.append(_wait(http, line, waiter, job.id, request))
        return found


def copies(grounds: Grounds, links: Sequence[str]) -> list[float]:
    """Milliseconds for the bare copy of each image, one after the other."""
    copier = Copier.to(grounds.copies, grounds.aws())
    folder, took = grounds.new_folder("latency").name, []
    with copier.http:
        for n, link in enumerate(links):
            began = monotonic()
            copier.copy(link, f"{folder}/{n}.png")
            took.append((monotonic() - began) * 1000)
    return took


def _wait(http: httpx.Client, line: Line, waiter: ThreadPoolExecutor, job_id: str, request: bytes) -> float:
    def ask() -> float:
        job = http.get(f"/v1/jobs/{job_id}", params={"wait": 30}, timeout=40).json()
        if job["status"] != "archived":
            raise RuntimeError(f"the job is {job['status']}")
        return monotonic()

    ended = waiter.submit(ask)
    # Until it waits; should it come later than the callback, it is told all the same.
    wait([ended], timeout=ASKED_S)
    began = monotonic()
    line.send(request, began)
    while (answer := line.answer()) is None:
        pass
    if answer != b'200 {"status":"accepted"}':
        raise RuntimeError(f"the callback was answered {answer!r}")
    return (ended.result() - began) * 1000
