"""Record which of our modules a request enters on its way through a running service."""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.support.running import ROOT

OURS = tuple(f"{ROOT / package}/" for package in ("receiver", "storage"))
SANDBOX = f"{ROOT / 'receiver' / 'sandbox'}/"
"""The gateways of the tests run in the same process."""


@dataclass
class Walk:
    """The modules entered from a call of one function to the call of another, once it is `armed`."""

    begin: CodeType
    end: CodeType
    holding: str
    """If not empty, a module between the two counts only if something with this text is passed to it."""
    one_thread: bool
    """Whether only what is entered in the thread where it began counts."""
    thread: int = 0
    armed: bool = False
    modules: dict[str, str] = field(default_factory=dict)
    """By module, as `receiver/http/limits.py`, the function by which it was entered first; in order."""
    finished: threading.Event = field(default_factory=threading.Event)

    def profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Note a call: what `sys.setprofile` takes."""
        code = frame.f_code
        if event != "call" or not self.armed or self.finished.is_set():
            return
        file = code.co_filename
        if not file.startswith(OURS) or file.startswith(SANDBOX):
            return
        if not self.modules and code is self.begin:
            self.thread = threading.get_ident()
        if not self.thread or (self.one_thread and self.thread != threading.get_ident()):
            return
        if code in (self.begin, self.end) or self._is_passed(frame):
            self.modules.setdefault(str(Path(file).relative_to(ROOT)), code.co_qualname)
        if code is self.end:
            self.finished.set()

    def _is_passed(self, frame: FrameType) -> bool:
        passed = (value for name, value in frame.f_locals.items() if name != "self")
        return not self.holding or any(self.holding in repr(value) for value in passed)


@contextmanager
def walked(
    begin: Callable[..., Any], end: Callable[..., Any], *, holding: str = "", one_thread: bool = False
) -> Iterator[Walk]:
    """Record a walk through whatever is started within the block: a thread is only watched from its start."""
    walk = Walk(inspect.unwrap(begin).__code__, inspect.unwrap(end).__code__, holding, one_thread)
    threading.setprofile(walk.profile)
    try:
        yield walk
    finally:
        threading.setprofile(None)
