"""Two processes of one Darkroom on one ledger, stepped by hand, and all that can come between two steps."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import httpx
from sqlalchemy import Connection

from receiver.app import build
from receiver.callbacks.endpoint import Received
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.errors import DarkroomError
from receiver.gateways.client import GatewayClient
from receiver.resources import Factories
from receiver.schedule import Timing
from receiver.service import JobParts, Service
from receiver.settings import S3Settings
from storage.archive.conformance import probe
from storage.archive.object_store import ObjectStore, StoredObject
from storage.errors import Conflict, LeaseLost, StorageError, Unavailable
from storage.ledger.database import Database
from storage.ledger.deliveries import DeliveryResult
from storage.ledger.ledger import Ledger
from storage.models import Job, JobRequest
from tests.jobs.scripted_gateways import KEYS, MODELS, Kind, Manner, ScriptedGateways, Theirs, signature
from tests.support.ledgers import Clock
from tests.support.live import GivenSettings
from tests.support.raw_server import Server

PUBLIC_URL = "http://127.0.0.1:8321"
BUCKET = "interleavings"
Trouble = Literal["crash", "unavailable", "meanwhile"]


class Crash(BaseException):
    """The process ends here; nobody catches it but the test."""


@dataclass
class Plan:
    """What is to happen at the `nth` point that a step comes to: around requests, commits and puts."""

    nth: int
    trouble: Trouble
    meanwhile: Sequence[Callable[[], None]] = ()
    where: str | None = None
    """Of which points; None for all: `request`, `answer`, `before commit`, `after commit`, `before put`,
    `after put`."""


class ShakyDatabase(Database):
    """Comes to a point before each transaction that writes, and after it."""

    point: Callable[[str], None]

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        self.point("before commit")
        with super().write(durable=durable) as connection:
            yield connection
        self.point("after commit")

    def migrate(self) -> None:
        """There is nothing to migrate: the file is a copy of one that was."""


class ShakyStore(ObjectStore):
    """Comes to a point before each object that is put, and after it. One for the whole run."""

    point: Callable[[str], None]

    def put_new(self, key: str, file: BinaryIO, **more: Any) -> StoredObject:
        self.point("before put")
        stored = super().put_new(key, file, **more)
        self.point("after put")
        return stored


@dataclass
class Shared:
    """What all examples of a run use, because it is slow to make and remembers nothing of them."""

    store: ShakyStore
    s3: S3Settings
    pictures: Server
    template: Path
    """A ledger's file with nothing in it."""
    folder: Path
    examples: int = 0


@contextmanager
def shared(s3: EmbeddedS3, pictures: Server, folder: Path) -> Iterator[Shared]:
    where: dict[str, Any] = {
        "bucket": BUCKET, "endpoint": s3.endpoint, "region": "us-east-1",
        "access_key": s3.access_key, "secret_key": s3.secret_key,
    }  # fmt: skip
    settings = S3Settings.model_validate(where | {"create_bucket": True})
    store = ShakyStore.connect(**where)
    assert isinstance(store, ShakyStore)
    probe(store, create=True)
    template = folder / "template.sqlite3"
    Database.open(f"sqlite:///{template}").close()
    yield Shared(store, settings, pictures, template, folder)


@dataclass
class Process:
    """One process that works: its parts, and the jobs that it has in hand."""

    service: Service
    hand: dict[str, Job] = field(default_factory=dict)

    @property
    def parts(self) -> JobParts:
        assert self.service.jobs is not None
        return self.service.jobs

    @property
    def name(self) -> str:
        return self.parts.worker.name

    @property
    def ledger(self) -> Ledger:
        return self.service.resources.ledger

    def claim(self, many: int) -> None:
        for job in self.ledger.claim(self.name, self.parts.worker.budget(many, [])):
            # Where its own lease ran out, the step that is under way goes on.
            self.hand.setdefault(job.id, job)

    def close(self) -> None:
        self.parts.downloader.close()
        self.parts.client.close()
        self.service.resources.database.close()


class World:
    """A ledger, a bucket, two gateways, a clock, and two processes that work."""

    def __init__(self, shared: Shared, *, callbacks: bool) -> None:
        self.shared = shared
        shared.examples += 1
        self.folder = shared.folder / f"{shared.examples}"
        self.folder.mkdir()
        shutil.copy(shared.template, self.folder / "ledger.sqlite3")
        self.clock = Clock()
        self.callbacks = callbacks
        self.plan: Plan | None = None
        self.refused: list[str] = []
        """Steps that the ledger refused as contradictory."""
        self.gateways = ScriptedGateways(shared.pictures.url)
        self.gateways.between = self.point
        self.gateways.submission_of = self._submission_of
        shared.pictures.scripts = self.gateways.scripts()
        shared.store.point = self.point
        self.asked: list[str] = []
        self.accepted: dict[str, str] = {}
        """Prompts of the jobs that were accepted, by id."""
        self.taken_in: Counter[tuple[str, str]] = Counter()
        """Deliveries that were answered `accepted`, by job and body."""
        self.retried: Counter[str] = Counter()
        self.processes = [self._begin(), self._begin()]

    def point(self, where: str) -> None:
        """Something lasting is about to be done, or was just done."""
        plan = self.plan
        if plan is None or plan.where not in {where, None}:
            return
        plan.nth -= 1
        if plan.nth > 0:
            return
        self.plan = None
        if plan.trouble == "crash":
            raise Crash
        if plan.trouble == "unavailable":
            if where in {"request", "answer"}:
                return
            raise Unavailable("scripted")
        manner = self.gateways.manner
        for act in plan.meanwhile:
            act()
        self.gateways.manner = manner

    @contextmanager
    def planned(self, plan: Plan | None, manner: Manner) -> Iterator[None]:
        """In the block, gateways behave so, and this happens."""
        self.plan, self.gateways.manner = plan, manner
        try:
            yield
        finally:
            self.plan, self.gateways.manner = None, Manner.WELL

    def _begin(self) -> Process:
        database = ShakyDatabase.open(f"sqlite:///{self.folder / 'ledger.sqlite3'}")
        assert isinstance(database, ShakyDatabase)
        database.point = self.point
        prefix = f"{self.shared.examples}/"
        settings = GivenSettings(
            public_url=PUBLIC_URL if self.callbacks else None,
            data_dir=self.folder,
            s3=self.shared.s3.model_copy(update={"prefix": prefix}),
            gateways={
                "apiframe": {"api_key": KEYS["apiframe"], "base_url": "http://apiframe.example"},
                "api_in_one": {"api_key": KEYS["api-in-one"], "base_url": "http://apiinone.example"},
            },
            download={"allow_networks": ["127.0.0.0/8"]},
        )
        factories = Factories(
            database=lambda _url: database, store=lambda **_more: self.shared.store, sender=self._sender
        )
        return Process(build(settings, clock=self.clock, timing=Timing(jitter=0), factories=factories))

    def _sender(self, client: httpx.Client, concurrency: Mapping[str, int]) -> GatewayClient:
        client.close()
        return GatewayClient(httpx.Client(transport=self.gateways), concurrency)

    @property
    def ledger(self) -> Ledger:
        return self.processes[0].ledger

    def crash(self, who: int) -> None:
        """A process dies with all that it knew; another one is started."""
        dead = self.processes[who]
        self.processes[who] = self._begin()
        dead.close()

    def step(self, who: int, job: Job) -> None:
        """Let a process do one step of a job that it has in hand, as `Worker.work` does."""
        process = self.processes[who]
        worker = process.parts.worker
        try:
            held = worker.run_step(job)
        except LeaseLost:
            del process.hand[job.id]
        except Conflict as error:
            self.refused.append(f"{job.status} {job.id}: {error}")
            worker.set_aside(job)
            del process.hand[job.id]
        except StorageError:
            del process.hand[job.id]
        except Crash:
            self.crash(who)
        else:
            if held.leased_by == worker.name:
                process.hand[job.id] = held
            else:
                del process.hand[job.id]

    def claim(self, who: int, many: int) -> bool:
        """Let a process claim due jobs; answers whether it got any."""
        process = self.processes[who]
        try:
            process.claim(many)
        except Unavailable:
            return False
        except Crash:
            self.crash(who)
            return False
        return bool(process.hand)

    def work(self, who: int, most: int = 12) -> None:
        """Let a process claim one job, if none is in hand, and see it through as far as it goes."""
        process = self.processes[who]
        if not process.hand:
            self.claim(who, 1)
        for _ in range(most):
            if not process.hand or process is not self.processes[who]:
                return
            self.step(who, next(iter(process.hand.values())))

    def submit(self, who: int, gateway: str, images: int) -> None:
        """Accept a job; whoever is answered an error asks again with the same key, or not at all."""
        prompt = f"picture {len(self.asked) + 1} of {images}"
        self.asked.append(prompt)
        request = JobRequest(model=MODELS[gateway], prompt=prompt)
        submitter = self.processes[who].parts.submitter
        for _ in range(2):
            try:
                judged = submitter.judge(gateway, request, idempotency_key=prompt)
                job, _ = submitter.accept(judged)
            except Unavailable:
                continue
            except Crash:
                self.crash(who)
                continue
            self.accepted[job.id] = prompt
            return

    def deliver(
        self, who: int, theirs: Theirs, kind: Kind, *, signed: bool, at: Theirs | None = None
    ) -> DeliveryResult | str:
        """Send a callback about a gateway's job, to its own URL or to that of another one."""
        url = (at or theirs).callback_url
        assert url is not None
        body = self.gateways.told(theirs, kind)
        return self.take_in(who, url, body, signature(body) if signed else {})

    def take_in(self, who: int, url: str, body: bytes, headers: Mapping[str, str]) -> DeliveryResult | str:
        """Take a callback in as the endpoint and the intake do; answers what became of it."""
        process = self.processes[who]
        gateway, token = url.split("/")[-2:]

        callbacks = process.service.callbacks
        try:
            offer = callbacks._verified(
                gateway, callbacks._claims(gateway, token), headers, Received(body, body)
            )
        except DarkroomError as error:
            return error.code
        before = self.everything() if self.plan is None else None
        try:
            (receipt,) = process.ledger.add_deliveries([offer])
        except Unavailable:
            return "unready"
        except Crash:
            self.crash(who)
            return "crashed"
        if receipt is DeliveryResult.ACCEPTED:
            self.taken_in[offer.delivery.job_id, offer.delivery.body_sha256] += 1
        elif before is not None and self.everything() != before:
            raise AssertionError(f"a callback that was {receipt} changed something")
        return receipt

    def everything(self) -> tuple[Any, ...]:
        jobs = [self.ledger.job(job_id) for job_id in self.job_ids()]
        return jobs, [self.ledger.deliveries(job.id) for job in jobs]

    def job_ids(self) -> list[str]:
        """The jobs that are in the ledger, accepted for all that their sender knows or not."""
        with self.processes[0].service.resources.database.read() as connection:
            return [row[0] for row in connection.exec_driver_sql("SELECT id FROM jobs ORDER BY id")]

    def retry(self, who: int, job: Job, *, resubmit: bool) -> str:
        """Ask for a job once more; answers what was said."""
        # Counted before, because one that was answered an error may have been done.
        self.retried[job.id] += 1
        try:
            self.processes[who].parts.retrier.retry(job.id, resubmit=resubmit)
        except DarkroomError as error:
            self.retried[job.id] -= 1
            return error.code
        except Unavailable:
            return "unready"
        except Crash:
            self.crash(who)
            return "crashed"
        return "asked"

    def cancel(self, who: int, job_id: str) -> None:
        """Call a job off, which may be refused."""
        try:
            self.processes[who].parts.canceller.cancel(job_id)
        except (DarkroomError, Unavailable):
            return
        except Crash:
            self.crash(who)

    def set_back(self, ms: int) -> None:
        """Set the clock back; each worker notices, and heals the ledger."""
        self.clock.now -= ms
        for process in self.processes:
            process.ledger.repair_clock_skew()

    def _submission_of(self, prompt: str) -> int:
        jobs = (self.ledger.job(job_id) for job_id in self.job_ids())
        return next(job.submission for job in jobs if job.request.prompt == prompt)

    def close(self) -> None:
        for process in self.processes:
            process.close()
        shutil.rmtree(self.folder)
