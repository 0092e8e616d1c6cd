"""Open what may be away at the start, in the background, with backoff until it is there."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

import structlog

from receiver.telemetry.outage import Outage
from storage.errors import StorageError, Unavailable, Unusable
from storage.gate import Gate

log = structlog.get_logger("darkroom.opening")

PATIENCE_S = 3.0
"""How long a start waits for the first try: most find everything there, and refuse no request then."""
JOIN_S = 1.0
BROKEN = "the try itself failed; the traceback before says how"


@dataclass(frozen=True, slots=True)
class Part:
    """Something that the service cannot do without."""

    name: str
    gate: Gate
    """Closed to all others until it is open."""
    open: Callable[[], None]
    """Raises a StorageError that says what is wrong, and Unusable if waiting cannot help."""


class Opening:
    """A thread for each part that opens it, again and again until that works. `start` it once."""

    def __init__(
        self,
        parts: Sequence[Part],
        wait_s: Callable[[int], float],
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        """`wait_s` returns the wait after so many failures; `opened` is called once all of them are open."""
        self._parts = parts
        self._wait_s = wait_s
        self._opened = opened
        self._closed = len(parts)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._failure: Unusable | None = None
        self._failed: Callable[[], None] = lambda: None
        self._tried = [threading.Event() for _ in parts]
        self._threads = [
            threading.Thread(target=self._run, args=pair, name=f"opening-{pair[0].name}", daemon=True)
            for pair in zip(parts, self._tried, strict=True)
        ]

    def on_failure(self, failed: Callable[[], None]) -> None:
        """Call something, in a thread of its own, once a part is Unusable. Before `start`."""
        self._failed = failed

    def raise_failure(self) -> None:
        """Raise Unusable if a part is."""
        if self._failure is not None:
            raise self._failure

    def start(self, patience_s: float = PATIENCE_S) -> None:
        """Begin, and `wait`; not for ever, for a try may hang."""
        for part in self._parts:
            part.gate.close(Unavailable(f"The {part.name} is being opened."))
        for thread in self._threads:
            thread.start()
        self.wait(patience_s)

    def wait(self, patience_s: float) -> None:
        """Wait for the first try of each part, for so many seconds at most."""
        deadline = monotonic() + patience_s
        for tried in self._tried:
            tried.wait(max(0.0, deadline - monotonic()))

    def stop(self) -> None:
        """Try no more; a try that hangs is left alone."""
        self._stopping.set()
        deadline = monotonic() + JOIN_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - monotonic()))

    def _run(self, part: Part, tried: threading.Event) -> None:
        outage, failures, pause_s = Outage(), 0, 0.0
        while not self._stopping.wait(pause_s):
            why = self._try(part)
            tried.set()
            if why is None:
                if (waited_s := outage.end()) is not None:
                    log.info(f"the {part.name} is there, going on", after_s=round(waited_s, 1))
                return
            if self._failure is not None:
                return
            failures += 1
            pause_s = self._wait_s(failures)
            if outage.is_news(why):
                log.error(f"waiting for the {part.name}", why=why)

    def _try(self, part: Part) -> str | None:
        """Try to open a part; returns why it is not open, or None."""
        try:
            with part.gate.passing():
                part.open()
        except StorageError as error:
            part.gate.close(error)
            if isinstance(error, Unusable):
                self._failure = error
                self._failed()
            return str(error)
        except Exception:
            log.exception(f"the {part.name} cannot be opened")
            return BROKEN
        part.gate.open()
        with self._lock:
            self._closed -= 1
            last = self._closed == 0
        if last:
            self._opened()
        return None
