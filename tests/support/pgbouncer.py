"""A real PgBouncer in front of a PostgreSQL, in any of its modes. Where there is none, tests are skipped."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests.support.postgres import NOBODY, USER, Postgres
from tests.support.processes import free_port

SETTINGS = {
    "listen_addr": "127.0.0.1",
    "auth_type": "any",
    "pool_mode": "transaction",
    "default_pool_size": "4",
    "query_wait_timeout": "5",
    "server_login_retry": "1",
    "unix_socket_dir": "",
}
MODES = ("transaction", "session")


class PgBouncer:
    """A pooler on a port that it keeps when it is started again."""

    def __init__(self, program: str, folder: Path, server: Postgres, **settings: str) -> None:
        self.port = free_port()
        self._program = program
        self._file = folder / "pgbouncer.ini"
        self._log = folder / "log"
        lines = [f"{name} = {value}" for name, value in (SETTINGS | settings).items()]
        self._file.write_text(
            "\n".join(
                [
                    "[databases]",
                    f"* = host=127.0.0.1 port={server.port} user={USER}",
                    "[pgbouncer]",
                    f"listen_port = {self.port}",
                    *lines,
                    "",
                ]
            )
        )
        self._child: subprocess.Popen[bytes] | None = None

    def url(self, name: str) -> str:
        """Where a database is through it, as DARKROOM_DATABASE_URL has it."""
        return f"postgres://{USER}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start it; it answers when this returns."""
        user = ["-u", NOBODY] if os.geteuid() == 0 else []
        with self._log.open("ab") as log:
            self._child = subprocess.Popen([self._program, *user, self._file], stdout=log, stderr=log)
        deadline = monotonic() + 20
        while True:
            assert self._child.poll() is None, self._log.read_text()
            assert monotonic() < deadline, self._log.read_text()
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            sleep(0.02)

    def kill(self) -> None:
        """`kill -9` of it."""
        if self._child is not None:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()


@contextmanager
def pooling(server: Postgres, **settings: str) -> Iterator[PgBouncer]:
    """A new PgBouncer until the end of the block; `settings` go before `SETTINGS`."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed here")
    with tempfile.TemporaryDirectory(prefix="darkroom-pooler-") as folder:
        Path(folder).chmod(0o755)  # it reads its settings as another user than root
        bouncer = PgBouncer(program, Path(folder), server, **settings)
        bouncer.start()
        try:
            yield bouncer
        finally:
            bouncer.kill()
