"""What the benchmarks run on: real servers on loopback, started once for a run when they are first needed."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Literal, Self

import psutil

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.benchmarks import archive, plain
from tests.benchmarks.images import Images
from tests.benchmarks.ledgers import SECRET_KEY
from tests.support import postgres
from tests.support.live import QUICK
from tests.support.processes import ROOT, Process, await_ready, environment, free_port, serving
from tests.support.services import S3Access

Kind = Literal["sqlite", "postgresql"]
DATABASES: tuple[Kind, ...] = ("sqlite", "postgresql")
DURABLE = {"fsync": "on", "shared_buffers": "512MB", "max_wal_size": "4GB"}
"""PostgreSQL as it is used: what it has said to be written is on the disk."""


BESIDE = "DARKROOM_WORKER__PROCESSES"
"""The setting that says who works: 1 by default."""


class Grounds:
    """The servers, in a folder that is gone afterwards."""

    def __init__(self, *, quick: bool, keep: Path | None = None) -> None:
        """`quick`: sizes that only show that everything works. `keep`: where large ledgers stay."""
        self.quick = quick
        self.keep = keep
        self._opened = ExitStack()
        self._numbers = itertools.count()
        self._grown: dict[tuple[Kind, str], str] = {}
        """The large ledgers that were made and not used yet."""

    def __enter__(self) -> Self:
        self.folder = Path(self._opened.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-bench-")))
        return self

    def __exit__(self, *_error: object) -> None:
        self._opened.close()

    @cached_property
    def s3(self) -> EmbeddedS3:
        return self._opened.enter_context(EmbeddedS3(self.folder / "s3"))

    @cached_property
    def sandbox(self) -> SandboxServer:
        """The gateways, which are asked nothing."""
        return self._opened.enter_context(SandboxServer(QUICK))

    @cached_property
    def postgres(self) -> postgres.Postgres:
        return self._opened.enter_context(postgres.serving(**DURABLE))

    @cached_property
    def images(self) -> Images:
        return self._opened.enter_context(Images(self.folder / "images"))

    @cached_property
    def copies(self) -> str:
        """A bucket for what is copied without Darkroom."""
        return self._new_bucket("bench-copies")

    @cached_property
    def shared(self) -> str:
        return self._new_bucket("bench-shared")

    def aws(self) -> dict[str, str]:
        """The variables by which the plain loop finds the bucket."""
        return {
            plain.ENDPOINT: self.s3.endpoint,
            "AWS_ACCESS_KEY_ID": self.s3.access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def rounds(self, number: int) -> range:
        return range(1 if self.quick else number)

    def new_folder(self, name: str) -> Path:
        folder = self.folder / f"{name}-{next(self._numbers)}"
        folder.mkdir()
        return folder

    def new_ledger(self, kind: Kind) -> str:
        if kind == "sqlite":
            return f"sqlite:///{self.new_folder('ledger') / 'ledger.sqlite3'}"
        return self.postgres.url(self.postgres.create())

    def grown_ledger(self, kind: Kind, outputs: int, *, images: int, callbacks: bool) -> str:
        """A ledger with so many outputs, for one use; a file of SQLite is kept if that was asked for.

        Those of both databases are made together, when the first is asked for.
        """
        if outputs == 0:
            return self.new_ledger(kind)
        name = f"ledger-{outputs}-{images}{'-callbacks' * callbacks}.sqlite3"
        if (kind, name) not in self._grown:
            kept = self.keep / name if self.keep else Path()
            here = Path(self.new_ledger("sqlite").removeprefix("sqlite:///"))
            if kept.is_file():
                shutil.copyfile(kept, here)
                archive.build(self._empty(name), outputs, images=images, callbacks=callbacks)
            else:
                archive.build(here, outputs, images=images, callbacks=callbacks, also=self._empty(name))
                if self.keep:
                    shutil.copyfile(here, kept)
            self._grown["sqlite", name] = f"sqlite:///{here}"
        return self._grown.pop((kind, name))

    def _empty(self, name: str) -> str:
        """A new database of PostgreSQL, for the ledger of that name."""
        return self._grown.setdefault(("postgresql", name), self.new_ledger("postgresql"))

    def database_pids(self, ledger: str) -> list[int]:
        """The processes of the database that a ledger is in, beside the service's own."""
        return [] if ledger.startswith("sqlite") else [self.postgres.pid]

    def variables(self, ledger: str, **more: str) -> dict[str, str]:
        """The settings of a process with this ledger and a bucket of its own."""
        ours = {
            "DARKROOM_DATABASE_URL": ledger,
            "DARKROOM_SECRET_KEYS": SECRET_KEY,
            "DARKROOM_LIMITS__API_TOKEN": "0",
            "DARKROOM_LOG_FORMAT": "json",
            BESIDE: "1",
        }
        return environment(self.s3, self.sandbox, self.new_folder("run"), free_port(), **(ours | more))

    @contextmanager
    def serving(
        self, ledger: str, *arguments: str, module: str = "receiver", **more: str
    ) -> Iterator[Process]:
        variables, folder = self.variables(ledger, **more), self.new_folder("serve")
        with serving(variables, folder, *arguments, module=module) as process:
            yield process

    def _new_bucket(self, name: str) -> str:
        access = S3Access(self.s3.endpoint, self.s3.access_key, self.s3.secret_key)
        access.open(bucket=name).check(create=True)
        return name


@contextmanager
def bare(*ledger: str) -> Iterator[Process]:
    """Serve the bare route or, with the file of a ledger, the receiver that is written by hand."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    began = monotonic()
    child = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.bare", str(port), *ledger], cwd=ROOT)
    try:
        await_ready(child, url)
        yield Process(child, url, monotonic() - began, Path(os.devnull))
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)


def port_of(process: Process) -> int:
    return int(process.url.rpartition(":")[2])


def cpu_s(*pids: int | None) -> float:
    """Processor time that processes have used, with all those that they have started and waited for."""
    total = 0.0
    for pid in pids:
        parent = psutil.Process(pid)
        for one in (parent, *parent.children(recursive=True)):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total
