"""Scenes of the fault suite: a world whose every wire leads through a fault proxy, and its end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.gateways.registry import BY_NAME
from receiver.sandbox import SandboxConfig
from tests.faults.forks import Forks
from tests.faults.judge import Verdict, judge
from tests.faults.proxy import Proxy
from tests.faults.world import SANDBOX, TERMINAL, WITHIN_S, Accepted, World, world

GATEWAYS = ("apiframe", "api-in-one")
KINDS = (*GATEWAYS, "replicate", "kie", "fal", "bfl", "runware")
"""A gateway of each kind. Signatures: over the body, by the API key (Apiframe) or a secret (Replicate); none
(API in One, Runware); of the sender alone (Kie); by published keys (fal); by a secret that goes along with
the request (BFL). After a lost answer: sent again by an idempotency key (Apiframe), or a callback tells."""
SIGNING = tuple(name for name in KINDS if BY_NAME[name].table.signing)
PROOF = tuple(name for name in SIGNING if name != "kie")
"""Those whose callbacks are believed as they come."""
UNSURE = tuple(name for name in KINDS if not BY_NAME[name].table.idempotency)
"""Those to which nothing may be sent again that may have been taken."""
OTHER = {"apiframe": "api-in-one", "api-in-one": "apiframe"}
SUBMIT = r"/generat"
"""What both gateways' submit paths have in them."""

MAY_FAIL = {"fault": "late", "delay_s": 0}
"""Changes nothing at the gateway, but tells the judge that the job was not meant to go well."""


@dataclass
class Wires:
    """What the service talks through, and what is talked to it through."""

    gateways: Mapping[str, Proxy]
    s3: Proxy
    callbacks: Proxy

    def gateway(self, name: str) -> Proxy:
        return self.gateways[name]


@dataclass(frozen=True)
class Scene:
    world: World
    wires: Wires

    def submit(self, *gateways: str, each: int = 1, fault: object = None, **more: Any) -> list[Accepted]:
        """Submit so many jobs to each of these gateways; to all of the scene if none is named."""
        return [
            self.world.submit(gateway, fault=fault, **more)
            for gateway in gateways or self.wires.gateways
            for _ in range(each)
        ]

    def finish(self, jobs: list[Accepted], within_s: float = WITHIN_S) -> list[dict[str, Any]]:
        """Wait until these jobs are terminal, and answer them as the API shows them."""
        deadline, found = monotonic() + within_s, []
        for job in jobs:
            shown = {"status": "unknown"}
            while shown["status"] not in TERMINAL:
                left = max(1, int(deadline - monotonic()) + 1)
                shown = self.world.get(f"/v1/jobs/{job.job_id}", wait=min(20, left))
                assert shown["status"] in TERMINAL or monotonic() < deadline, f"{shown}\n{self.world.said()}"
            found.append(shown)
        return found

    def archived(self, jobs: list[Accepted], within_s: float = WITHIN_S) -> None:
        """Wait until these jobs are terminal, and see that they are archived."""
        wrong = [job for job in self.finish(jobs, within_s) if job["status"] != "archived"]
        assert wrong == [], self.world.said()

    def failed(self, jobs: list[Accepted], code: str, within_s: float = WITHIN_S) -> None:
        """Wait until these jobs are terminal, and see that they failed for this reason."""
        for job in self.finish(jobs, within_s):
            assert (job["status"], (job["error"] or {}).get("code")) == ("failed", code), self.world.said()

    def places(self, jobs: list[Accepted]) -> list[str]:
        return [self.world.get(f"/v1/jobs/{job.job_id}")["status"] for job in jobs]

    def answers(self, path: str) -> int:
        return httpx.get(f"{self.world.url}{path}", trust_env=False, timeout=40).status_code

    def until(self, reached: Callable[[], bool], within_s: float = WITHIN_S) -> None:
        """Wait for what nobody announces: look again until it is so."""
        deadline = monotonic() + within_s
        while not reached():
            assert monotonic() < deadline, self.world.said()
            sleep(0.05)

    def sent_to(self, job: Accepted) -> int:
        """How many jobs the gateway made of one."""
        return sum(made.prompt == job.prompt for made in self.world.sandbox.jobs())


Report = Callable[[str, Verdict], None]
"""Takes a verdict under the name of its fault; raises AssertionError if it has problems."""


@dataclass(frozen=True)
class Stage:
    s3: EmbeddedS3
    forks: Forks
    folder: Path
    report: Report
    ledger: str | None = None
    """Where the PostgreSQL database of its world is; by default the ledger is a file."""

    @contextmanager
    def world(self, **more: Any) -> Iterator[World]:
        """Everything but a running service, and no wires."""
        with world(self.s3, self.forks, self.folder, ledger=self.ledger, **more) as here:
            yield here

    @contextmanager
    def scene(
        self,
        fault: str,
        *,
        sandbox: SandboxConfig = SANDBOX,
        timing: Mapping[str, Any] | None = None,
        before: Callable[[Scene], None] = lambda _scene: None,
        unfinished: bool = False,
        gateways: Sequence[str] = GATEWAYS,
        **variables: str,
    ) -> Iterator[Scene]:
        """Start a service; at the end of the block every job is waited for, and all of it is judged.

        `before` is called before the start.
        """
        with (
            self.world(sandbox=sandbox, timing=timing, gateways=gateways, **variables) as here,
            Proxy(self.s3.endpoint) as s3,
            Proxy(here.url) as callbacks,
            ExitStack() as stack,
        ):
            ways = {name: stack.enter_context(Proxy(here.sandbox.url)) for name in gateways}
            here.variables |= {
                f"{BY_NAME[name].table.settings}__BASE_URL": proxy.url for name, proxy in ways.items()
            } | {"DARKROOM_S3__ENDPOINT": s3.url, "DARKROOM_PUBLIC_URL": callbacks.url}
            scene = Scene(here, Wires(ways, s3, callbacks))
            before(scene)
            here.start()
            yield scene
            here.settle()
            self.report(fault, judge(here, unfinished=unfinished))
