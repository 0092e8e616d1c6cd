"""Processes that share a PostgreSQL ledger ring for each other."""

import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

from storage.errors import Unavailable
from storage.ledger.database import Database
from storage.ledger.wakeup import Topic, WakeupChannel
from tests.jobs.test_postgres_service import KEYS
from tests.support.ledgers import Clock
from tests.support.live import Start
from tests.support.postgres import serving

Heard = queue.SimpleQueue[str]
Hang = Callable[[], AbstractContextManager[tuple[WakeupChannel, Heard]]]

LONG = 20.0


@contextmanager
def hung(url: str) -> Iterator[tuple[WakeupChannel, Heard]]:
    """A bell on a connection of its own, and what it heard: rings, and the names of errors."""
    heard: Heard = queue.SimpleQueue()
    with closing(Database.open(url)) as database:
        bell = WakeupChannel(database, lambda error: heard.put(type(error).__name__))
        for ring in Topic:
            bell.on(ring, lambda ring=ring: heard.put(ring))  # type: ignore[misc]
        bell.start()
        try:
            if database.shared:
                assert {heard.get(timeout=LONG) for _ in Topic} == set(Topic)  # it may have missed any
            yield bell, heard
        finally:
            bell.stop(LONG)


def test_the_others_hear_it_and_oneself_does_not(postgres_url: str) -> None:
    with hung(postgres_url) as (one, of_one), hung(postgres_url) as (two, of_two):
        one.notify(Topic.WORK)
        assert of_two.get(timeout=LONG) == Topic.WORK
        two.notify(Topic.EVENTS)
        assert of_one.get(timeout=LONG) == Topic.EVENTS
        assert (of_one.empty(), of_two.empty()) == (True, True)


def test_however_much_happens_a_process_rings_now_and_then(postgres_url: str) -> None:
    with hung(postgres_url) as (one, _), hung(postgres_url) as (_two, of_two):
        for _ in range(5000):
            one.notify(Topic.EVENTS)
        one.notify(Topic.WORK)
        heard: list[str] = []
        while not heard or heard[-1] != Topic.WORK:
            heard.append(of_two.get(timeout=LONG))
    assert len(heard) < 500


def test_what_is_due_is_rung_before_it_ends(postgres_url: str) -> None:
    with hung(postgres_url) as (_, of_one):
        for _ in range(3):
            with hung(postgres_url) as (other, _of_other):
                other.notify(Topic.WORK)
            assert of_one.get(timeout=LONG) == Topic.WORK


def test_it_hears_again_once_the_server_is_back(clock: Clock) -> None:
    with serving() as server, ExitStack() as stack:
        url = server.url(server.create())
        one, _ = stack.enter_context(hung(url))
        two, heard = stack.enter_context(hung(url))
        server.stop("immediate")
        assert heard.get(timeout=LONG) == Unavailable.__name__
        server.start()
        # Whatever was rung meanwhile it has not heard, so it looks at everything; and says nothing twice.
        assert {heard.get(timeout=LONG) for _ in Topic} == set(Topic)
        del one, two


def test_on_sqlite_nobody_listens(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    with hung(url) as (one, heard), hung(url) as (_, of_two):
        one.notify(Topic.WORK)
        one.stop(LONG)
        assert (heard.empty(), of_two.empty()) == (True, True)


def test_a_callback_that_nobody_works_on_here_is_rung_for(start: Start, postgres_url: str) -> None:
    with hung(postgres_url) as (_, heard):
        live = start(database_url=postgres_url, secret_keys=KEYS, work=False)
        job = live.submit({"gateway": "apiframe", "model": "imagen-4-fast", "prompt": "a kite"})
        assert {heard.get(timeout=LONG), heard.get(timeout=LONG)} == set(Topic)
        del job


def test_moves_are_told_to_the_other_processes(start: Start, postgres_url: str) -> None:
    with hung(postgres_url) as (_, heard):
        live = start(database_url=postgres_url, secret_keys=KEYS)
        job = live.make({"gateway": "apiframe", "model": "imagen-4-fast", "prompt": "a kite"})
        assert job["status"] == "archived"
        assert heard.get(timeout=LONG) == Topic.EVENTS


def test_it_hears_in_a_process_with_a_thousand_connections(postgres_url: str) -> None:
    """`select.select` refuses files numbered over 1,023."""
    with ExitStack() as stack:
        many = [stack.enter_context(Path("/dev/null").open()) for _ in range(1100)]
        assert many[-1].fileno() > 1023
        one, _ = stack.enter_context(hung(postgres_url))
        _, of_two = stack.enter_context(hung(postgres_url))
        one.notify(Topic.WORK)
        assert of_two.get(timeout=LONG) == Topic.WORK
