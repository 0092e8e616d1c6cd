"""One Darkroom under test and all that is around it, to be broken in any way and then judged."""

import random
import sqlite3
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from receiver.demo.gateways import settings_of
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxConfig, SandboxServer
from storage.archive.object_store import ObjectStore
from tests.faults.child import Wanted
from tests.faults.clock import ServiceClock
from tests.faults.forks import Child, Forks
from tests.faults.points import Kill
from tests.support.processes import environment, free_port
from tests.support.services import S3Access

TIMING: Mapping[str, Any] = {
    "callback_polls": (1, 2, 2),
    "poll_only": 0.1,
    "unconfirmed": 5,
    "forgotten": 1,
    "downloads": (0, 0.05, 0.1, 0.2),
    "downloads_later": 0.3,
    "backoff_first": 0.05,
    "backoff_most": 0.4,
    "pause_first": 0.2,
    "pause_most": 0.4,
    "breaker_first": 0.1,
    "open_first": 0.1,
    "open_most": 0.5,
}
"""The usual schedules, made short."""

SANDBOX = SandboxConfig(
    latency_s=(0.05, 0.15), image_px=32, plain_images=True, retry_delays_s=(0.1, 0.3, 0.6, 1.2)
)
MODELS = {"apiframe": "imagen-4-fast", "api-in-one": "imagen4-ultra"}
"""Of the gateways that every world has."""
BUCKET = "faults"
SECRET_KEY = "0123456789abcdef0123456789abcdef"
CLIENTS = 4
PATIENCE_S = 200
"""How long a submission is tried again; longer than any scenario keeps its service down."""
WITHIN_S = 120.0
"""How long a test waits for what must come: the machine may be slow, and do much else meanwhile."""
AGAIN_S = 0.05
"""How long a submission that was answered 503 waits before it is sent again."""
OPENING = "is being opened"
"""What a service says until its first try to open a part has ended: it listens after a while in any case."""
MIXED = (
    *[None] * 6,
    "early",
    "out_of_order",
    {"fault": "duplicate", "times": 3, "at_once": True},
    {"fault": "expired_link", "times": 1},
    {"fault": "late", "delay_s": 0.5},
    "no_callback",
)
"""What is drawn for jobs that come in without a pause: half of them go well."""
TERMINAL = frozenset({"archived", "partial", "failed", "cancelled"})


@dataclass(frozen=True)
class Accepted:
    """A submission that was answered 2xx."""

    key: str
    """Its idempotency key."""
    job_id: str
    gateway: str
    prompt: str
    """Of no other job, so that the sandbox's jobs can be counted by it."""


@dataclass
class World:
    """A service, its sandbox, its part of a bucket, and what was submitted. Use `world`.

    Threads may submit while another one kills and starts the service.
    """

    folder: Path
    forks: Forks
    sandbox: SandboxServer
    store: ObjectStore
    """A connection of our own to the bucket, past any proxy."""
    prefix: str
    variables: dict[str, str]
    """The service's environment; change it before a start, to lead it through a proxy for instance."""
    timing: dict[str, Any]
    clock: ServiceClock
    lease_ms: int = 1000
    accepted: list[Accepted] = field(default_factory=list)
    up: threading.Event = field(default_factory=threading.Event)
    """Set while the service answers, as far as we know."""
    _child: Child | None = None
    _children: list[Child] = field(default_factory=list)
    _over: bool = False
    _never: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _clients: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(CLIENTS))
    # One for all threads, without TLS: to set that up takes longer than a request.
    _http: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, verify=False))
    _under_way: list[Future[Accepted]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.variables['DARKROOM_PORT']}"

    @property
    def child(self) -> Child:
        assert self._child is not None, "start it first"
        return self._child

    @property
    def log(self) -> Path:
        """What all services of this world said, in JSON lines."""
        return self.folder / "service.log"

    @property
    def ledger(self) -> Path:
        return self.folder / "data" / "ledger.sqlite3"

    def start(self, kill: Kill | None = None, *, expect_up: bool = True) -> Child:
        """Start the service, again on the same folder and port, and wait until it answers.

        With `kill` it will die there. One that dies during its start is an error if it is expected up.
        """
        self._child = self.fork(kill)
        if expect_up:
            self.await_up()
        return self._child

    def fork(self, kill: Kill | None = None, *, port: int | None = None) -> Child:
        """Start a service, beside another one if on a port of its own; it is not up yet."""
        more = {} if port is None else {"DARKROOM_PORT": str(port)}
        child = self.forks.start(
            Wanted(
                variables=self.variables | more,
                log=str(self.log),
                clock=str(self.clock.path),
                timing=self.timing,
                lease_ms=self.lease_ms,
                kill=asdict(kill) if kill else None,
            )
        )
        self._children.append(child)
        return child

    def await_up(self, within_s: float = WITHIN_S) -> None:
        """Wait until it answers, and has its ledger open or knows why it cannot be."""
        deadline = monotonic() + within_s
        while True:
            # Its death is waited for; whether it answers can only be tried.
            assert not self.child.ended(0.005), self.said()
            assert monotonic() < deadline, self.said()
            with suppress(httpx.TransportError):
                answer = self._http.get(f"{self.url}/v1/jobs", params={"limit": 1}, timeout=20)
                if answer.status_code != 503 or OPENING not in answer.text:
                    self.up.set()
                    return

    def kill(self) -> None:
        self.up.clear()
        self.child.kill()

    def await_death(self, within_s: float = WITHIN_S) -> None:
        """Wait until the service has killed itself, as it was told to."""
        assert self.child.ended(within_s), f"the kill point was not reached\n{self.said()}"
        self.up.clear()

    def submit(self, gateway: str, *, fault: object = None, **more: Any) -> Accepted:
        """Submit a job until that is answered 2xx, across any number of deaths, as a careful client does.

        `fault` is one of the sandbox's; other arguments go into the body.
        """
        key = uuid.uuid4().hex
        own = next(one for one in self.sandbox.gateways if one.name == gateway)
        model, params, prompt = MODELS.get(gateway, own.model), own.params(), f"fault suite, job {key}"
        body = {"gateway": gateway, "model": model, "params": params, "prompt": prompt, **more}
        if fault is not None:
            body["params"] = {**body["params"], "sandbox": fault}
        deadline = monotonic() + PATIENCE_S
        while True:
            assert not self._over, "a submission was still under way"
            assert monotonic() < deadline, f"no answer to a submission\n{self.said()}"
            try:
                answer = self._http.post(
                    f"{self.url}/v1/jobs", json=body, headers={"idempotency-key": key}, timeout=5
                )
            except httpx.TransportError:
                self.up.wait(1)
                continue
            if answer.is_success:
                break
            assert answer.status_code == 503, answer.text
            self._never.wait(AGAIN_S)
        job = Accepted(key, answer.json()["id"], gateway, body["prompt"])
        with self._lock:
            self.accepted.append(job)
        return job

    def submit_meanwhile(self, gateway: str, **more: Any) -> Future[Accepted]:
        """The same from another thread, for when the service will die of it; `settle` waits for it."""
        future = self._clients.submit(self.submit, gateway, **more)
        self._under_way.append(future)
        return future

    @contextmanager
    def submitting(
        self,
        chance: random.Random,
        faults: Sequence[object],
        pause_s: tuple[float, float],
        *,
        clients: int = 1,
    ) -> Iterator[None]:
        """Have so many clients submit jobs in the block, each with a pause between two."""
        over = threading.Event()

        def submit(own: random.Random) -> None:
            while not over.wait(own.uniform(*pause_s)):
                self.submit(own.choice([*MODELS]), fault=own.choice(faults))

        with ThreadPoolExecutor(clients) as pool:
            going = [pool.submit(submit, random.Random(chance.random())) for _ in range(clients)]
            try:
                yield
            finally:
                over.set()
        for client in going:
            client.result()

    def get(self, path: str, **query: Any) -> Any:
        answer = self._http.get(f"{self.url}{path}", params=query, timeout=40)
        assert answer.is_success, answer.text
        return answer.json()

    def post(self, path: str, body: object = None) -> Any:
        """Send JSON to the service, once."""
        answer = self._http.post(f"{self.url}{path}", json=body or {}, timeout=40)
        assert answer.is_success, answer.text
        return answer.json()

    def pages(self, path: str, name: str, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.get(path, limit=200, **query, **cursor)
            found += page[name]
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}

    def settle(self, within_s: float = WITHIN_S) -> None:
        """Wait until every job is terminal and the sandbox has told all it had to tell.

        What is not terminal when the time is over is left to the judge.
        """
        deadline = monotonic() + within_s
        for future in self._under_way:
            future.result(within_s)
        for job in self.accepted:
            while (left := deadline - monotonic()) > 0:
                if self.get(f"/v1/jobs/{job.job_id}", wait=int(min(left, 30)) + 1)["status"] in TERMINAL:
                    break
        for report in self.sandbox.jobs():
            self.sandbox.wait(report.id, 60)

    def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        """Read the ledger past the service. JSON is text, as it is in SQLite's file."""
        if (url := self.variables.get("DARKROOM_DATABASE_URL")) is not None:
            with psycopg.connect(url, row_factory=dict_row) as connection:
                set_json_loads(lambda raw: raw if isinstance(raw, str) else raw.decode(), connection)
                return connection.execute(query.replace("?", "%s").encode(), arguments or None).fetchall()
        with closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, arguments)]

    def integrity(self) -> list[str]:
        """What the database itself finds: `ok`, or what is broken."""
        if "DARKROOM_DATABASE_URL" in self.variables:
            return ["ok"]  # it has checksums of its own, and a page that is damaged cannot be read
        return [row["integrity_check"] for row in self.rows("PRAGMA integrity_check")]

    def said(self, lines: int = 40) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


@contextmanager
def world(
    s3: EmbeddedS3,
    forks: Forks,
    folder: Path,
    *,
    sandbox: SandboxConfig = SANDBOX,
    timing: Mapping[str, Any] | None = None,
    ledger: str | None = None,
    gateways: Collection[str] = (),
    **variables: str,
) -> Iterator[World]:
    """Everything but a running service: `start` it. It is killed at the end.

    `gateways` are had beside Apiframe and API in One. `ledger` is where a PostgreSQL database for it is; by
    default it is a file. `timing` changes some of `TIMING`; `variables` are settings of the service:
    `DARKROOM_...=`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f"{uuid.uuid4().hex[:12]}/"
    store = S3Access(s3.endpoint, s3.access_key, s3.secret_key).open(bucket=BUCKET)
    ours = {"DARKROOM_S3__BUCKET": BUCKET, "DARKROOM_S3__PREFIX": prefix}
    if ledger is not None:
        ours |= {"DARKROOM_DATABASE_URL": ledger, "DARKROOM_SECRET_KEYS": SECRET_KEY}
    with SandboxServer(sandbox) as server:
        ours |= _settings(server, gateways)
        made = World(
            folder=folder,
            forks=forks,
            sandbox=server,
            store=store,
            prefix=prefix,
            variables=environment(s3, server, folder, free_port(), **ours, **variables),
            timing={**TIMING, **(timing or {})},
            clock=ServiceClock(folder / "clock"),
        )
        try:
            yield made
        finally:
            made._over = True
            made._clients.shutdown(cancel_futures=True)
            made._http.close()
            for child in made._children:
                child.kill()


def _settings(sandbox: SandboxServer, gateways: Collection[str]) -> dict[str, str]:
    """Return the variables that lead the service to the sandbox for these gateways."""
    return {
        f"DARKROOM_GATEWAYS__{group.upper()}__{name.upper()}": value
        for group, settings in settings_of(sandbox).items()
        if group.replace("_", "-") in gateways
        for name, value in settings.items()
    }
