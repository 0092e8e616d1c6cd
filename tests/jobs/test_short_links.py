"""Links that die soon are downloaded before they do, however many jobs of other gateways wait."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from receiver.demo.gateways import settings_of
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.gateways.bfl import TABLE as BFL
from receiver.resources import Factories
from receiver.sandbox import SandboxServer
from receiver.schedule import system_clock
from storage.archive.object_store import ObjectStore, StoredObject
from storage.ledger.job_writer import Move, NewJob
from storage.ledger.ledger import Ledger
from storage.models import FoundBy, ImageRef, JobRequest, JobResult, Status
from tests.support.live import FAST, QUICK, Movable, started
from tests.support.processes import until
from tests.support.sandbox import PROMPT, connect, take_one

BACKLOG, SHORT = 500, 5
IMAGE_S = 3
"""How long each image takes by the sandbox's clock: the backlog alone takes 25 minutes."""


def made(sandbox: SandboxServer, gateway: str) -> tuple[str, str]:
    """Have a gateway make an image; return its id for the job, and the link."""
    key = sandbox.settings()[gateway.replace("-", "_")]["api_key"]
    if gateway == "bfl":
        with connect(sandbox, x_key=key) as http:
            job_id = str(http.post("/v1/flux-2-pro", json={"prompt": PROMPT}).json()["id"])
    else:
        with connect(sandbox, authorization=f"Bearer {key}") as http:
            job_id = take_one(http)
    return job_id, sandbox.wait(job_id).images[0]


def ready(ledger: Ledger, sources: list[tuple[str, str | None, str]]) -> list[str]:
    """Add jobs whose images are to be downloaded: of a gateway, with its id for it, from a link."""
    request = JobRequest(model="flux-2-pro", prompt=PROMPT)
    theirs = {f"job-{number:03}": source for number, source in enumerate(sources)}
    ledger.add_jobs([NewJob(name, gateway, request) for name, (gateway, _, _) in theirs.items()])
    for job in ledger.claim("us", len(theirs)):
        _, gateway_job_id, url = theirs[job.id]
        sent = Move(Status.SUBMITTING, keep_lease=True).write(ledger, job, "us")
        taken = Move(Status.RUNNING, keep_lease=True, gateway_job_id=gateway_job_id)
        result = JobResult(images=(ImageRef(url),), images_returned=1)
        done = Move(Status.READY, found_by=FoundBy.POLL_ONLY, result=result)
        done.write(ledger, taken.write(ledger, sent, "us"), "us")
    return [*theirs]


@pytest.mark.exhaustive
def test_links_of_ten_minutes_are_archived_before_a_backlog_of_slower_ones(
    s3_server: EmbeddedS3, tmp_path: Path
) -> None:
    clock = Movable(system_clock)

    class Slow(ObjectStore):
        def put(self, key: str, file: BinaryIO, **more: Any) -> StoredObject:
            if "images/" in key:
                clock.forward(IMAGE_S)
            return super().put(key, file, **more)

    config = replace(QUICK, plain_images=True, image_px=32, clock=lambda: clock() / 1000)
    with SandboxServer(config) as sandbox:
        gateways = {"bfl": settings_of(sandbox)["bfl"]}
        start = partial(started, s3_server, sandbox=sandbox, timing=FAST, gateways=gateways)
        with start(tmp_path, factories=Factories(store=Slow.connect), work=False) as live:
            ledger = live.service.resources.ledger
            _, other = made(sandbox, "api-in-one")
            backlog = [("api-in-one", None, other)] * BACKLOG
            jobs = ready(ledger, backlog + [("bfl", *made(sandbox, "bfl")) for _ in range(SHORT)])
            slow, short = jobs[:BACKLOG], jobs[BACKLOG:]
            assert BFL.life_s is not None
            assert BFL.life_s < BACKLOG * IMAGE_S
            live.parts.worker.start()
            try:
                until(lambda: all(live.job(one).status.terminal for one in short), 60)
                statuses = [live.job(one).status for one in short]
                waiting = sum(not live.job(one).status.terminal for one in slow)
            finally:
                live.parts.worker.stop(20)
                live.parts.worker.join(20)
    assert statuses == [Status.ARCHIVED] * SHORT
    assert waiting > BACKLOG - BFL.life_s / IMAGE_S
