"""Have thumbnails made by helper processes, so that nothing in an image can harm the service.

A helper is started when it is first needed and used for many images; `receiver/thumbnails/child.py` is its
program. One that takes too long is killed, one that died is done without, and the next image gets a new one.
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

from receiver.errors import DarkroomError, NoThumbnail, Unready
from storage.media.formats import is_webp

log = structlog.get_logger("darkroom.thumbnails")

DEADLINE_S = 20.0
IDLE_S = 60.0
AT_ONCE = 2
"""How many images are decoded at the same time; of large ones only one."""
LARGE_PIXELS = 16_000_000
MEMORY_BYTES = 256 * 1024 * 1024
"""What a helper may take for itself and a small image."""
MEMORY_PER_PIXEL = 24
"""What it may take on top: WebP takes 16 bytes, AVIF with transparency and more than 8 bits about 20."""
MAX_MADE_BYTES = 1024 * 1024


class Died(Exception):
    """A helper ended, or said what no helper says."""


def usual_program() -> list[str]:
    """The words that start a helper: neither environment nor folder counts, only where Pillow is."""
    found = importlib.util.find_spec("PIL")
    assert found is not None
    assert found.origin is not None
    program = Path(__file__).with_name("child.py")
    return [sys.executable, "-I", "-B", str(program), str(Path(found.origin).parent.parent)]


class Thumbnailer:
    """Makes thumbnails, some at once. Thread-safe; close it at the end."""

    def __init__(
        self,
        program: Sequence[str] | None = None,
        *,
        deadline_s: float = DEADLINE_S,
        idle_s: float = IDLE_S,
        at_once: int = AT_ONCE,
    ) -> None:
        """`program` is started for each helper, by default the usual one.

        `deadline_s` is how long one image may take, `idle_s` how long a helper waits for another one.
        """
        self.at_once = at_once
        self._program = program
        self._deadline_s = deadline_s
        self._idle_s = idle_s
        self._places = Semaphore(at_once)
        self._large = Lock()
        self._lock = Lock()
        self._idle: list[tuple[_Helper, Timer]] = []
        self._helpers: set[_Helper] = set()
        self._closed = False

    def make(self, image: BinaryIO, *, size: int, pixels: int) -> bytes:
        """Make the thumbnail of an image that has `size` bytes and says that it has `pixels`, in WebP.

        Raises NoThumbnail if none can be made of it, and Unready if helpers cannot be started at all.
        """
        with ExitStack() as held:
            if pixels > LARGE_PIXELS:
                held.enter_context(self._large)
            held.enter_context(self._places)
            return self._make(image, size, pixels)

    def close(self) -> None:
        """End all helpers; what is being made comes to nothing."""
        with self._lock:
            self._closed = True
            helpers = list(self._helpers)
            for _, timer in self._idle:
                timer.cancel()
            self._idle.clear()
        for helper in helpers:
            self._end(helper)

    def helpers(self) -> list[int]:
        """The process ids of the helpers that run now."""
        with self._lock:
            return [helper.pid for helper in self._helpers]

    def _make(self, image: BinaryIO, size: int, pixels: int) -> bytes:
        helper = self._take()
        try:
            made = helper.make(image, size, pixels, self._deadline_s)
        except NoThumbnail:
            self._give_back(helper)
            raise
        except Died as death:
            self._log_death(helper, death)
            if not helper.used or helper.late:
                raise self._error_for(helper) from death
        except BaseException:
            self._end(helper)
            raise
        else:
            self._give_back(helper)
            return made
        # It may have been harmed by an image before: only one that is new tells what this image does.
        return self._make(image, size, pixels)

    def _log_death(self, helper: _Helper, death: Died) -> None:
        code = self._end(helper)
        why = "it took too long" if helper.late else str(death)
        log.warning("a thumbnail helper ended", why=why, code=code)

    def _error_for(self, helper: _Helper) -> DarkroomError:
        if self._closed:
            return Unready("The service is stopping.")
        how = f"it takes more than {self._deadline_s:g} seconds" if helper.late else "it broke what tried it"
        return NoThumbnail(f"No thumbnail can be made of this image: {how}.")

    def _take(self) -> _Helper:
        while True:
            with self._lock:
                if self._closed:
                    raise Unready("The service is stopping.")
                if not self._idle:
                    helper = _Helper(self._program or usual_program())
                    self._helpers.add(helper)
                    return helper
                helper, timer = self._idle.pop()
            timer.cancel()
            if helper.alive:
                return helper
            self._end(helper)

    def _give_back(self, helper: _Helper) -> None:
        timer = Timer(self._idle_s, self._retire, [helper])
        timer.daemon = True
        helper.used = True
        with self._lock:
            if not self._closed:
                self._idle.append((helper, timer))
                timer.start()

    def _retire(self, helper: _Helper) -> None:
        with self._lock:
            before = len(self._idle)
            self._idle = [(one, timer) for one, timer in self._idle if one is not helper]
            if len(self._idle) == before:
                return
        self._end(helper)

    def _end(self, helper: _Helper) -> int:
        code = helper.end()
        with self._lock:
            self._helpers.discard(helper)
        return code


class _Helper:
    """One helper process, used by one thread at a time."""

    def __init__(self, program: Sequence[str]) -> None:
        # Its environment is empty, so that it can tell no secret; what it prints is not worth a log line.
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
        try:
            self._process = subprocess.Popen(  # noqa: S603
                program,
                env=kept,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise Unready(f"No thumbnail helper could be started: {error.strerror}.") from error
        self.pid = self._process.pid
        self.late = False
        self.used = False
        """Whether it has answered for another image before."""

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def make(self, image: BinaryIO, size: int, pixels: int, deadline_s: float) -> bytes:
        """Have one image made small; raise NoThumbnail if it says that it cannot, and Died."""
        memory = MEMORY_BYTES + 2 * size + MEMORY_PER_PIXEL * pixels
        asked = {"bytes": size, "pixels": pixels, "memory": memory, "seconds": max(1, round(deadline_s))}
        watchdog = Timer(deadline_s, self._expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            return self._exchange(json.dumps(asked).encode() + b"\n", image)
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise Died(type(error).__name__) from error
        finally:
            watchdog.cancel()

    def end(self) -> int:
        """End it at once; answers its exit code."""
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what was not written will not be
                pipe.close()
        return code

    def _expire(self) -> None:
        self.late = True
        self._process.kill()

    def _exchange(self, head: bytes, image: BinaryIO) -> bytes:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        image.seek(0)
        requests.write(head)
        shutil.copyfileobj(image, requests)
        requests.flush()
        answer = json.loads(answers.readline(4096))
        if "error" in answer:
            raise NoThumbnail(f"No thumbnail can be made of this image: {str(answer['error'])[:100]}.")
        length = int(answer["bytes"])
        if not 0 < length <= MAX_MADE_BYTES:
            raise ValueError(length)
        made = bytes(answers.read(length))
        if len(made) < length or not is_webp(made):
            raise EOFError
        return made
