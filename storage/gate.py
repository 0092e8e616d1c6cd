"""Keep a part closed until it is open for use: a database or a bucket may be away at the start."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident

from storage.errors import Misconfigured, StorageError, Unavailable


class Gate:
    """Open at first. While it is closed, only the thread that opens the part gets through. Thread-safe."""

    def __init__(self) -> None:
        self._why: StorageError | None = None
        self._opener: int | None = None

    def check(self) -> None:
        """Raise Misconfigured or Unavailable, with the reason, while it is closed for this thread."""
        why = self._why
        if why is not None and get_ident() != self._opener:
            # Of every other kind a reader would conclude something about one object or row.
            raise (Misconfigured if isinstance(why, Misconfigured) else Unavailable)(str(why))

    def close(self, why: StorageError) -> None:
        """Close it, or change the reason."""
        self._why = why

    def open(self) -> None:
        """Let every thread through."""
        self._why = None

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Let this thread through within the context, and no other."""
        self._opener = get_ident()
        try:
            yield
        finally:
            self._opener = None
