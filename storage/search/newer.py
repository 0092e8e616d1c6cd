"""The outputs just before one in the order of a search: for the page before, and the picture before."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select

from storage.ledger.database import Database
from storage.ledger.schema import jobs, outputs
from storage.search import where
from storage.search.filters import SearchFilter
from storage.search.planner import plan
from storage.search.search import images_wanted, parse_output_id


class Newer:
    """Reads the order of a search against its direction. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ids(self, wanted: SearchFilter, than: str, *, limit: int) -> Sequence[str]:
        """List the ids of outputs that come before the output `than`, the nearest first.

        Of an output that is not there none come before. Raises ValueError if `than` is not an output's id.
        """
        job_id, index = parse_output_id(than)
        with self._database.read() as connection:
            number = connection.scalar(select(jobs.c.number).where(jobs.c.id == job_id))
            if number is None:
                return []
            way = plan(connection, wanted, with_images=True)
            query = (
                select(outputs.c.job_id, outputs.c.index)
                .select_from(way.rows.join(outputs, outputs.c.job_id == jobs.c.id))
                .where(
                    *way.conditions,
                    *where.of_jobs(wanted),
                    *where.numbers(wanted, way.number),
                    *images_wanted(wanted),
                    way.number >= number,
                    or_(way.number > number, outputs.c.index < index),
                )
                .order_by(way.number, outputs.c.index.desc())
                .limit(limit)
            )
            return [f"{row.job_id}.{row.index}" for row in connection.execute(query)]
