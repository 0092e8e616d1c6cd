"""Count the modules of ours that are passed a value on its way through a running service.

The way is of one leg for each thread that it goes through, which lasts from the call of one function until
another has returned. On it a module counts if one of its functions is passed the value: as an argument, or
within one, such as a text or bytes with it inside, a request, a collection, or a value of several fields.
So neither what is handed nothing of it counts, nor what makes the response.

A job's record holds everything, so being passed one says nothing: a function that gets a `Job`, or its row,
counts only if it takes the field with the value out of it, which is: if its code has the field's name.
"""

import inspect
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from pydantic import BaseModel
from sqlalchemy import RowMapping

from storage.models import Job
from tests.support.running import ROOT

OURS = tuple(f"{ROOT / package}/" for package in ("receiver", "storage"))
SANDBOX = f"{ROOT / 'receiver' / 'sandbox'}/"
"""The gateways of the tests run in the same process."""
ROW = {"attempt_log", "next_attempt_at", "prompt"}
"""Columns by which a job's row is known that is a plain dictionary."""
DEPTH = 5
"""How deep a value is looked for in what is passed."""

Leg = tuple[Callable[..., Any], Callable[..., Any]]


@dataclass
class Walk:
    """The modules that are passed a value on some legs, once it is known."""

    legs: Sequence[Leg]
    fields_of_job: Collection[str]
    """Where a job's record has the value: attributes of `Job` and columns of its row."""
    value: tuple[str, ...] = ()
    """Parts by which the value is known; with none, nothing counts yet."""
    modules: dict[str, str] = field(default_factory=dict)
    """By module, as `receiver/http/limits.py`, the function that was passed it first; in order."""
    finished: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._ends = dict(tuple(inspect.unwrap(one).__code__ for one in leg) for leg in self.legs)
        self._walking: dict[int, Any] = {}

    def profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Note a call or a return: what `sys.setprofile` takes."""
        code, thread = frame.f_code, threading.get_ident()
        if not self.value or not code.co_filename.startswith(OURS) or code.co_filename.startswith(SANDBOX):
            return
        if event == "call" and code in self._ends:
            self._walking[thread] = code
        if (begin := self._walking.get(thread)) not in self._ends:
            return
        if event == "call" and self._is_passed(frame):
            self.modules.setdefault(str(Path(code.co_filename).relative_to(ROOT)), code.co_qualname)
        if event == "return" and code is self._ends[begin]:
            del self._ends[begin]
            if not self._ends:
                self.finished.set()

    def _is_passed(self, frame: FrameType) -> bool:
        names = (*frame.f_code.co_names, *frame.f_code.co_consts)
        takes = any(name in names for name in self.fields_of_job)
        return any(self._holds(passed, takes, DEPTH) for passed in list(frame.f_locals.values()))

    def _holds(self, passed: object, takes: bool, depth: int) -> bool:
        inside: Collection[object] = ()
        match passed:
            case str():
                return any(part in passed for part in self.value)
            case bytes() | bytearray():
                return any(part.encode() in passed for part in self.value)
            case Job() | RowMapping() if not takes:
                return False
            case dict() if not takes and passed.keys() >= ROW:
                return False
            case httpx.Request() | httpx.Response():
                inside = (str(passed.url), passed.content)
            case Mapping():
                inside = (*passed.keys(), *passed.values())
            case list() | tuple() | set() | frozenset():
                inside = passed
            case BaseModel():
                inside = list(vars(passed).values())
            case _ if is_dataclass(passed):
                inside = [getattr(passed, one.name, None) for one in fields(passed)]
        return depth > 0 and any(self._holds(one, takes, depth - 1) for one in inside)


@contextmanager
def walked(*legs: Leg, fields_of_job: Collection[str] = ()) -> Iterator[Walk]:
    """Record a walk through whatever is started within the block: a thread is only watched from its start."""
    walk = Walk(legs, fields_of_job)
    threading.setprofile(walk.profile)
    try:
        yield walk
    finally:
        threading.setprofile(None)
