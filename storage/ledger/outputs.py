"""Insert archived images as outputs, and read them; note those that the bucket does not have any more."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any

import sqlalchemy as sa

from storage.errors import Conflict
from storage.ledger import events, search_index
from storage.ledger.schema import outputs
from storage.models import Output
from storage.statements import AnyRow, Prepared

_COLUMNS = tuple(field.name for field in fields(Output))
_ADD_OUTPUT = Prepared(
    sa.text(
        "INSERT INTO outputs (" + ", ".join(f'"{name}"' for name in _COLUMNS) + ") "
        "VALUES (" + ", ".join(f":{name}" for name in _COLUMNS) + ") ON CONFLICT DO NOTHING "
        'RETURNING "index"'
    )
)
_FOUND_AGAIN = Prepared(
    sa.update(outputs)
    .where(
        outputs.c.job_id == sa.bindparam("the_job"),
        outputs.c.index == sa.bindparam("the_index"),
        outputs.c.missing_since.is_not(None),
    )
    .returning(outputs.c.index)
)
_DIGEST = Prepared(
    sa.select(outputs.c.sha256).where(
        outputs.c.job_id == sa.bindparam("the_job"), outputs.c.index == sa.bindparam("the_index")
    )
)
_ALL = Prepared(sa.select(outputs).where(outputs.c.job_id == sa.bindparam("job")).order_by(outputs.c.index))


class Later:
    """What is written at the end of a transaction, because other transactions wait for it."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._tallies: Counter[tuple[str, str]] = Counter()

    def count(self, facets: Iterable[tuple[str, str]]) -> None:
        """Count an output under its facets."""
        self._tallies.update(facets)

    def write(self, connection: sa.Connection) -> None:
        """Write it."""
        events.note(connection, self.events)
        search_index.count_outputs(connection, self._tallies)


def add_output(connection: sa.Connection, job: AnyRow, output: Output, later: Later) -> None:
    """Insert an archived image, or replace one that is missing; idempotent. `job` is the row of its job.

    Raises Conflict if the job has another one at that index.
    """
    values = asdict(output)
    new = _ADD_OUTPUT.scalar(connection, values) is not None
    place = {"the_job": output.job_id, "the_index": output.index}
    if not new and not _FOUND_AGAIN.rows(connection, place | values):
        if _DIGEST.scalar(connection, place) != output.sha256:
            raise Conflict(f"Output {output.id} is archived with another digest.")
        return
    later.events.append(events.of_output(job, output))
    search_index.index_output(connection, job, output)
    if new:
        later.count(search_index.facets_of(job))


def of_job(connection: sa.Connection, job_id: str) -> list[Output]:
    """Return the outputs of a job by index."""
    return [Output(**row) for row in _ALL.rows(connection, {"job": job_id})]


def note_missing(connection: sa.Connection, output: Output, now: int) -> bool:
    """Note that the bucket does not have an image any more; returns whether that was not known."""
    there = sa.update(outputs).where(*_same(output), outputs.c.missing_since.is_(None))
    return connection.execute(there.values(missing_since=now)).rowcount == 1


def note_found(connection: sa.Connection, output: Output) -> None:
    """Note that the bucket has an image again."""
    connection.execute(sa.update(outputs).where(*_same(output)).values(missing_since=None))


def _same(output: Output) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return outputs.c.job_id == output.job_id, outputs.c.index == output.index
