"""Ring for the other processes on the same PostgreSQL ledger, so that none has to wait until it next looks.

A ring says only that it is worth looking, never what there is: one that gets lost costs a second, and nothing
else. It is therefore sent beside the transactions that it speaks of, after they are over: as a part of them
it would make them all wait for one lock (https://www.postgresql.org/docs/current/sql-notify.html).

On SQLite nothing is heard but what is tied to it, and on servers that know the protocol but no LISTEN
nothing at all; processes go on looking once a second.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from enum import StrEnum
from time import monotonic
from typing import Any
from uuid import uuid4

from storage.ledger.database import Database

CHANNEL = "darkroom"

GAP_S = 0.05
"""The least time between two rings of one process; the first after a pause is at once."""

LOOK_S = 30.0
"""How often it is tried whether the connection still stands."""

RETRY_S = 1.0
RETRY_MOST_S = 60.0


def readable_of(files: Sequence[Any], within_s: float | None = None) -> list[Any]:
    """Which of these can be read, once one can. A process with many connections has numbers for its files
    that `select.select` refuses.
    """
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(within_s)]


class Topic(StrEnum):
    """What it may be worth looking for."""

    WORK = "work"
    """Jobs that are due."""
    EVENTS = "events"
    """Jobs that have moved."""


class WakeupChannel:
    """A thread with a connection of its own that rings and listens. `ring` may be called from any thread."""

    def __init__(self, database: Database, silent: Callable[[Exception], None]) -> None:
        """`silent` is called with the reason whenever it begins to hear nothing; it goes on trying."""
        self._database = database
        self._silent = silent
        self._name = uuid4().hex
        self._answers: dict[str, Callable[[], None]] = {}
        self._due: set[Topic] = set()
        self._next_at = 0.0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._rope: tuple[socket.socket, socket.socket] | None = None
        self._ties: list[Callable[[Topic], None]] = []
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)

    def answer(self, ring: Topic, look: Callable[[], None]) -> None:
        """Look when another process rings so, and whenever a ring may have been missed. Before `start`."""
        self._answers[ring] = look

    def tie(self, pull: Callable[[Topic], None]) -> None:
        """Have something else called at each ring where the database tells nobody. It must not wait."""
        if not self._database.shared:
            self._ties.append(pull)

    def heard(self, ring: Topic) -> None:
        """Look, because somebody else has rung so."""
        if ring in self._answers:
            self._answers[ring]()

    def start(self) -> None:
        """Begin to listen."""
        if self._database.shared:
            self._rope = socket.socketpair()
            self._thread.start()

    def ring(self, ring: Topic) -> None:
        """Ring for the other processes."""
        for pull in self._ties:
            pull(ring)
        with self._lock:
            if self._rope is not None and ring not in self._due:
                self._due.add(ring)
                self._rope[0].send(b".")

    def stop(self, timeout_s: float) -> None:
        """Ring what is due, and hear nothing more."""
        with self._lock:
            rope, self._rope = self._rope, None
        self._stopping.set()
        if rope is None:
            return
        rope[0].send(b".")
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            for end in rope:
                end.close()

    def _run(self) -> None:
        assert self._rope is not None
        pulled = self._rope[1]
        pause = 0.0
        while not self._stopping.wait(pause):
            try:
                with self._database.own_connection() as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    pause = 0.0
                    for look in self._answers.values():
                        look()
                    while not self._stopping.is_set():
                        self._attend(connection, pulled)
            except Exception as error:  # noqa: BLE001 - this thread must not end
                if not pause and not self._stopping.is_set():
                    self._silent(error)
                pause = min(max(RETRY_S, 2 * pause), RETRY_MOST_S)

    def _attend(self, connection: Any, pulled: socket.socket) -> None:
        with self._lock:
            wait_s = max(0.0, self._next_at - monotonic()) if self._due else LOOK_S
        readable = readable_of([connection, pulled], wait_s)
        if pulled in readable:
            pulled.recv(4096)
        if self._stopping.is_set() or monotonic() >= self._next_at:
            self._send(connection)
        if not readable and wait_s == LOOK_S:
            connection.execute("SELECT 1")
        for told in connection.notifies(timeout=0):
            sender, _, ring = told.payload.partition(" ")
            if sender != self._name and ring in set(Topic):
                self.heard(Topic(ring))

    def _send(self, connection: Any) -> None:
        with self._lock:
            due, self._due = self._due, set()
        for ring in due:
            connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, f"{self._name} {ring}"))
            self._next_at = monotonic() + GAP_S
