"""Wake other processes on the same PostgreSQL ledger by LISTEN/NOTIFY, so that they need not poll often.

A notification says only that it is worth looking, never what there is: one that gets lost costs a second, and
nothing else. It is therefore sent after the transactions that it is about, not in them, where they would all
wait for one lock (https://www.postgresql.org/docs/current/sql-notify.html).

SQLite has nothing like it: only what is set by `forward` is called there. On servers that speak PostgreSQL's
protocol but have no LISTEN nothing arrives. Processes poll once a second in any case.

Behind a pooler in transaction mode nobody can listen: a notification would go to whichever client has the
session by then. What is sent through it arrives at those who listen elsewhere.
"""

import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from enum import StrEnum
from time import monotonic
from typing import Any
from uuid import uuid4

from storage.errors import Misconfigured
from storage.ledger.database import Database

CHANNEL = "darkroom"

GAP_S = 0.05
"""The least time between two notifications of one process; the first after a pause is sent at once."""

LOOK_S = 30.0
"""How often an idle connection is tested."""

RETRY_S = 1.0
RETRY_MOST_S = 60.0

POOLED = (
    "DARKROOM_DATABASE_URL leads to a pooler in transaction mode. To be woken at once, use session mode, or "
    "set DARKROOM_DATABASE_DIRECT_URL to PostgreSQL itself."
)


def readable_of(files: Sequence[Any], within_s: float | None = None) -> list[Any]:
    """Return which of these can be read, once one can.

    Unlike `select.select` it takes file numbers above 1023, which a process with many connections has.
    """
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(within_s)]


class Topic(StrEnum):
    """What a notification is about."""

    WORK = "work"
    """Jobs that are due."""
    EVENTS = "events"
    """Jobs that have moved."""


class WakeupChannel:
    """A thread with a connection of its own for LISTEN and NOTIFY. Any thread may call `notify`."""

    def __init__(self, database: Database, silent: Callable[[Exception], None]) -> None:
        """`silent` is called with the reason when nothing can be heard; a lost connection is made again with
        backoff, and Misconfigured is what only an operator can change.
        """
        self._database = database
        self._silent = silent
        self._name = uuid4().hex
        self._callbacks: dict[str, Callable[[], None]] = {}
        self._due: set[Topic] = set()
        self._next_at = 0.0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._wake_socket: tuple[socket.socket, socket.socket] | None = None
        self._forwards: list[Callable[[Topic], None]] = []
        self._thread = threading.Thread(target=self._run, name="wakeup", daemon=True)

    def on(self, topic: Topic, callback: Callable[[], None]) -> None:
        """Set what to call when another process notifies, or may have while disconnected. Before `start`."""
        self._callbacks[topic] = callback

    def forward(self, send: Callable[[Topic], None]) -> None:
        """Call something else at each `notify` where the database has no NOTIFY. It must not block."""
        if not self._database.shared:
            self._forwards.append(send)

    def dispatch(self, topic: Topic) -> None:
        """Call what `on` set for a topic."""
        if topic in self._callbacks:
            self._callbacks[topic]()

    def start(self) -> None:
        """Start to listen."""
        if self._database.shared:
            self._wake_socket = socket.socketpair()
            self._thread.start()

    def notify(self, topic: Topic) -> None:
        """Notify the other processes."""
        for send in self._forwards:
            send(topic)
        with self._lock:
            if self._wake_socket is not None and topic not in self._due:
                self._due.add(topic)
                self._wake_socket[0].send(b".")

    def stop(self, timeout_s: float) -> None:
        """Send the notifications that are due, and stop listening."""
        with self._lock:
            wake_socket, self._wake_socket = self._wake_socket, None
        self._stopping.set()
        if wake_socket is None:
            return
        wake_socket[0].send(b".")
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            for end in wake_socket:
                end.close()

    def _run(self) -> None:
        assert self._wake_socket is not None
        woken = self._wake_socket[1]
        pause = 0.0
        while not self._stopping.wait(pause):
            try:
                with self._database.own_connection() as connection:
                    if listens := self._database.keeps_session(connection):
                        connection.execute(f"LISTEN {CHANNEL}")
                    pause = 0.0
                    for callback in self._callbacks.values():
                        callback()
                    if not listens:
                        self._silent(Misconfigured(POOLED))
                    while not self._stopping.is_set():
                        self._attend(connection, woken)
            except Exception as error:  # noqa: BLE001 - this thread must not end
                if not pause and not self._stopping.is_set():
                    self._silent(error)
                pause = min(max(RETRY_S, 2 * pause), RETRY_MOST_S)

    def _attend(self, connection: Any, woken: socket.socket) -> None:
        with self._lock:
            wait_s = max(0.0, self._next_at - monotonic()) if self._due else LOOK_S
        readable = readable_of([connection, woken], wait_s)
        if woken in readable:
            woken.recv(4096)
        if self._stopping.is_set() or monotonic() >= self._next_at:
            self._send(connection)
        if not readable and wait_s == LOOK_S:
            connection.execute("SELECT 1")
        for received in connection.notifies(timeout=0):
            sender, _, topic = received.payload.partition(" ")
            if sender != self._name and topic in set(Topic):
                self.dispatch(Topic(topic))

    def _send(self, connection: Any) -> None:
        with self._lock:
            due, self._due = self._due, set()
        for topic in due:
            connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, f"{self._name} {topic}"))
            self._next_at = monotonic() + GAP_S
