"""Make thumbnails in a pool of confined child processes, so that nothing in an image can harm the service.

A child (`receiver/thumbnails/child.py`) is started when it is first needed and used for many images. One
that takes too long is killed, and the next image gets a new one.

Not `concurrent.futures` nor pebble: they unpickle what the child sends, which hands the service over to a
child whose decoder was taken over; they pass the environment with its secrets on; and their children need
threads and open files, which these may not have.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock, Semaphore, Timer
from typing import BinaryIO

import structlog

from receiver.errors import NoThumbnail, Unready
from storage.media.formats import is_webp

log = structlog.get_logger("darkroom.thumbnails")

DEADLINE_S = 20.0
IDLE_S = 60
AT_ONCE = 2
"""How many images are decoded at the same time; of large ones only one."""
LARGE_PIXELS = 16_000_000
MEMORY_BYTES = 256 * 1024 * 1024
"""What a child may take for itself and a small image."""
MEMORY_PER_PIXEL = 24
"""What it may take on top: WebP takes 16 bytes, AVIF with transparency and more than 8 bits about 20."""
MAX_MADE_BYTES = 1024 * 1024


class Died(Exception):
    """A child ended, or broke the protocol."""


def child_command() -> list[str]:
    """Return the command line of a child: isolated (`-I`) from environment and folder, with Pillow's path."""
    found = importlib.util.find_spec("PIL")
    assert found is not None
    assert found.origin is not None
    program = Path(__file__).with_name("child.py")
    return [sys.executable, "-I", "-B", str(program), str(Path(found.origin).parent.parent)]


class Thumbnailer:
    """A pool of child processes. Thread-safe; close it at the end."""

    def __init__(
        self,
        command: Sequence[str] | None = None,
        *,
        deadline_s: float = DEADLINE_S,
        idle_s: int = IDLE_S,
        at_once: int = AT_ONCE,
    ) -> None:
        """`command` starts a child, by default the usual one.

        `deadline_s` is how long one image may take; a child that has waited `idle_s` for another one exits.
        """
        self.at_once = at_once
        self._command = command
        self._deadline_s = deadline_s
        self._idle_s = idle_s
        self._places = Semaphore(at_once)
        self._large = Lock()
        self._lock = Lock()
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._closed = False

    def make(self, image: BinaryIO, *, size: int, pixels: int) -> bytes:
        """Return the thumbnail, in WebP, of an image of `size` bytes whose header says `pixels`.

        Raises NoThumbnail if none can be made of it, and Unready if no child can be started.
        """
        memory = MEMORY_BYTES + 2 * size + MEMORY_PER_PIXEL * pixels
        asked = {"bytes": size, "pixels": pixels, "memory": memory, "idle": self._idle_s}
        request = json.dumps({**asked, "seconds": max(1, round(self._deadline_s))}).encode() + b"\n"
        with ExitStack() as held:
            if pixels > LARGE_PIXELS:
                held.enter_context(self._large)
            held.enter_context(self._places)
            # A used child may have been harmed by an earlier image: only a new one's death proves something.
            while True:
                child = self._acquire()
                try:
                    return self._exchange(child, request, image)
                except Died as death:
                    self._raise_if_final(child, death)

    def close(self) -> None:
        """Kill all children; what is being made fails with Unready."""
        with self._lock:
            self._closed = True
            children = list(self._children)
            self._idle.clear()
        for child in children:
            self._kill(child)

    def children(self) -> list[int]:
        """Return the process ids of the children that run."""
        with self._lock:
            return [child.process.pid for child in self._children if child.process.poll() is None]

    def _exchange(self, child: _Child, request: bytes, image: BinaryIO) -> bytes:
        try:
            made = child.make(request, image, self._deadline_s)
        except NoThumbnail:
            self._release(child)
            raise
        except BaseException:
            self._kill(child)
            raise
        self._release(child)
        return made

    def _raise_if_final(self, child: _Child, death: Died) -> None:
        why = "it took too long" if child.late else str(death)
        log.warning("a thumbnail process ended", why=why, code=child.process.returncode)
        if self._closed:
            raise Unready("The service is stopping.") from death
        if child.late:
            how = f"it takes more than {self._deadline_s:g} seconds"
            raise NoThumbnail(f"No thumbnail can be made of this image: {how}.") from death
        if not child.used:
            raise NoThumbnail("No thumbnail can be made of this image: its decoder crashed.") from death

    def _acquire(self) -> _Child:
        with self._lock:
            if self._closed:
                raise Unready("The service is stopping.")
            while self._idle:
                if (child := self._idle.pop()).process.poll() is None:
                    return child
                child.kill()
                self._children.discard(child)
            child = _Child(self._command or child_command())
            self._children.add(child)
            return child

    def _release(self, child: _Child) -> None:
        child.used = True
        with self._lock:
            if not self._closed:
                self._idle.append(child)

    def _kill(self, child: _Child) -> None:
        child.kill()
        with self._lock:
            self._children.discard(child)


class _Child:
    """One child process, used by one thread at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        # Its environment is empty, so that it knows no secret; what it prints is not worth a log line.
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
        try:
            self.process = subprocess.Popen(  # noqa: S603
                command,
                env=kept,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise Unready(f"No thumbnail process could be started: {error.strerror}.") from error
        self.late = False
        self.used = False
        """Whether it has made an image before."""

    def make(self, request: bytes, image: BinaryIO, deadline_s: float) -> bytes:
        """Return one thumbnail. Raises NoThumbnail if the child says that it cannot make it, and Died."""
        watchdog = Timer(deadline_s, self._expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            return self._exchange(request, image)
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise Died(type(error).__name__) from error
        finally:
            watchdog.cancel()

    def kill(self) -> None:
        """Kill the process, if it still runs, and close its pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what was not written will not be
                pipe.close()

    def _expire(self) -> None:
        self.late = True
        self.process.kill()

    def _exchange(self, request: bytes, image: BinaryIO) -> bytes:
        requests, responses = self.process.stdin, self.process.stdout
        assert requests is not None
        assert responses is not None
        image.seek(0)
        requests.write(request)
        shutil.copyfileobj(image, requests)
        requests.flush()
        response = json.loads(responses.readline(4096))
        if "error" in response:
            raise NoThumbnail(f"No thumbnail can be made of this image: {str(response['error'])[:100]}.")
        length = int(response["bytes"])
        if not 0 < length <= MAX_MADE_BYTES:
            raise ValueError(length)
        made = bytes(responses.read(length))
        if len(made) < length or not is_webp(made):
            raise EOFError
        return made
