"""A terminal that a command runs in: what it was sent, and what is on its screen."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyte

from tests.support.running import environment

COLUMNS, LINES = 120, 60
"""The size of a terminal, unless a test says otherwise."""


@dataclass
class Terminal:
    child: subprocess.Popen[bytes]
    fd: int
    screen: pyte.Screen = field(default_factory=lambda: pyte.Screen(COLUMNS, LINES))
    sent: bytes = b""

    def read(self, until: str | None = None, times: int = 1) -> str:
        """Read until a text is on the screen so often, or else to the end; answers the screen."""
        while until is None or self.shown().count(until) < times:
            if not self._more():
                assert until is None, f"{until!r} never came:\n{self.shown()}"
                break
        return self.shown()

    def lines_from(self, first: str, number: int) -> list[str]:
        """Read until so many whole lines were sent from one that begins so; return them without colours."""
        while True:
            text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.sent.decode(errors="replace")).replace("\r", "")
            found = re.search(rf"^{re.escape(first)}(?:.*\n){{{number}}}", text, re.MULTILINE)
            if found:
                return found[0].splitlines()
            assert self._more(), f"{number} lines from {first!r} never came:\n{text}"

    def _more(self) -> bool:
        try:
            piece = os.read(self.fd, 65536)
        except OSError:
            return False
        self.sent += piece
        pyte.ByteStream(self.screen).feed(piece)
        return bool(piece)

    def shown(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def interrupt(self) -> int:
        """Ctrl-C; answers the exit code."""
        self.child.send_signal(signal.SIGINT)
        self.read()
        return self.child.wait(20)


@contextmanager
def in_terminal(
    *arguments: str, folder: Path, columns: int = COLUMNS, lines: int = LINES, **variables: str
) -> Iterator[Terminal]:
    """Run `darkroom ...` with a terminal as its input and outputs."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    told = {"TERM": "xterm-256color", "NO_COLOR": "", "COLORTERM": "", **variables}
    unset = ("TMUX", "KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL", "COLUMNS", "LINES", "FORCE_COLOR")
    env = {
        name: value for name, value in environment(**told).items() if name in variables or name not in unset
    }
    if not env["NO_COLOR"]:
        del env["NO_COLOR"]
    child = subprocess.Popen(
        [sys.executable, "-m", "receiver", *arguments],
        cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(child, ours, pyte.Screen(columns, lines))
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        child.wait(20)
        os.close(ours)
