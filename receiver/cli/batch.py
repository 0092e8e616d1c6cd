"""Submit the rows of a file: all are judged before the first is sent, and none is ever submitted twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from receiver.cli.pairs import BadInput
from receiver.cli.rows import Row

if TYPE_CHECKING:
    from receiver.client import Darkroom
    from receiver.schemas.batch import BatchResult
    from receiver.schemas.job import Job

ROWS, BYTES = 50, 1024 * 1024
"""The most rows, and about the most bytes, in one request; the service takes more of both."""

KEY = "idempotency_key"
Advance = Callable[[int], None]
"""Called with the number of rows that are done."""


def keyed(rows: Sequence[Row], digest: str, again: str) -> list[Row]:
    """Give each row without an idempotency key one of its own, from the file's digest and the row.

    `again` names another run of the same file. Raises BadInput for what JSON cannot hold, and for a key that
    two different rows have.
    """
    faults: list[str] = []
    named: dict[Any, tuple[int, str]] = {}
    found: list[Row] = []
    for number, row in enumerate(rows):
        try:
            text = json.dumps(row.fields, sort_keys=True, allow_nan=False, ensure_ascii=False)
            if len(text) > BYTES:
                faults.append(f"line {row.line}: has more than {BYTES} characters")
            unique = hashlib.sha256("\n".join([digest, again, str(number), text]).encode()).hexdigest()
        except ValueError:
            faults.append(f"line {row.line}: has a number or a character that JSON cannot hold")
            continue
        if (key := row.fields.get(KEY)) is not None:
            line, same = named.setdefault(str(key), (row.line, text))
            if same != text:
                faults.append(f"line {row.line}: {KEY}: line {line} has the same one for another job")
        found.append(Row(row.line, {KEY: f"file-{unique}", **row.fields}))
    if faults:
        raise BadInput("\n".join(faults))
    return found


@dataclass(slots=True)
class Batch:
    """The rows of a file, and what is known of them."""

    rows: Sequence[Row]
    jobs: dict[int, Job] = field(default_factory=dict)
    """By the number of their row, from 0."""
    refused: list[str] = field(default_factory=list)
    """Why rows were refused, with their lines."""
    in_flight: int = 0
    """How many rows were sent without a response yet."""

    def judge(self, darkroom: Darkroom, advance: Advance) -> None:
        """Ask what is wrong with each row, and which were submitted before; nothing is submitted."""
        for numbers in self._parts(range(len(self.rows))):
            self._take(numbers, _judged(darkroom, [self.rows[number] for number in numbers]))
            advance(len(numbers))

    def send(self, darkroom: Darkroom, advance: Advance) -> None:
        """Submit every row that has no job yet."""
        for numbers in self._parts([number for number in range(len(self.rows)) if number not in self.jobs]):
            self.in_flight = len(numbers)
            self._take(numbers, darkroom.submit_batch([self.rows[number].fields for number in numbers]))
            self.in_flight = 0
            advance(len(numbers))

    def _take(self, numbers: Sequence[int], results: Sequence[BatchResult]) -> None:
        for number, result in zip(numbers, results, strict=True):
            if result.job is not None:
                self.jobs[number] = result.job
            if result.problem is not None:
                line = f"line {self.rows[number].line}"
                faults = [f"{line}: {one.field}: {one.message}" for one in result.problem.faults]
                self.refused += faults or [f"{line}: {result.problem.detail}"]

    def _parts(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        part, length = list[int](), 0
        for number in numbers:
            more = len(json.dumps(self.rows[number].fields))
            if part and (len(part) == ROWS or length + more > BYTES):
                yield part
                part, length = [], 0
            part.append(number)
            length += more
        if part:
            yield part


def _judged(darkroom: Darkroom, rows: Sequence[Row]) -> Sequence[BatchResult]:
    """Judge rows; where one row makes the request itself unreadable or too long, find which."""
    from receiver.client import ApiError
    from receiver.schemas.batch import BatchResult
    from receiver.schemas.problem import Problem

    try:
        return darkroom.submit_batch([row.fields for row in rows], dry_run=True)
    except ApiError as error:
        if error.status not in {413, 422}:
            raise
        if len(rows) > 1:
            half = len(rows) // 2
            return [*_judged(darkroom, rows[:half]), *_judged(darkroom, rows[half:])]
        told = {"type": "about:blank", "title": error.code, "code": error.code, "detail": error.detail}
        problem = Problem.model_validate(told | {"status": error.status, "faults": error.faults})
        return [BatchResult(created=False, job=None, problem=problem)]
