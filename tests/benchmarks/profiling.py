"""Where the time of a process goes, as py-spy sees it: the functions that cost most, by thread and in all."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TIMES_A_SECOND = "200"
SHOWN = 60
OURS = re.compile(r"\((receiver|storage)/")
_NUMBERS = re.compile(r"\d+")


@contextmanager
def profiled(pid: int, told: Path) -> Iterator[None]:
    """Watch a process until it ends, which it must within the block; then write where its time went.

    What holds the interpreter's lock is counted, so that a thread that waits is not.
    """
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        raise RuntimeError("py-spy is not installed: pip install py-spy")
    told.parent.mkdir(parents=True, exist_ok=True)
    raw = told.with_suffix(".raw")
    options = ["-p", str(pid), "-f", "raw", "-o", str(raw), "-r", TIMES_A_SECOND]
    options += ["--threads", "--gil", "--subprocesses"]
    with told.open("wb") as log:
        child = subprocess.Popen([spy, "record", *options], stdout=log, stderr=log)
    try:
        yield
    finally:
        # It ends by itself with the process that it watches, and writes then.
        child.wait(30)
    if not raw.exists():
        raise RuntimeError(f"py-spy says why it could not watch: {told}")
    told.write_text(summary(raw))


def summary(raw: Path) -> str:
    """The functions of a profile that cost most, each with the share of all samples."""
    threads: Counter[str] = Counter()
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, _, times = line.rpartition(" ")
        # Of several processes each line begins with the one that it is of.
        thread, *frames = (part for part in stack.split(";") if not part.startswith("process "))
        # `thread (4711): work-3`; all threads that do the same are one here.
        name = _NUMBERS.sub("", thread.partition(": ")[2]).strip("-") or "thread"
        # While an interpreter starts or ends, there may be no frame.
        names = [_function(frame) for frame in frames] or ["outside of Python"]
        threads[name] += int(times)
        own[f"{name}: {names[-1]}"] += int(times)
        whole.update({f"{name}: {one}": int(times) for one in set(names)})
    total = threads.total()
    ours = Counter({name: times for name, times in whole.items() if OURS.search(name)})
    parts = [
        ("by thread", threads),
        ("own time", own),
        ("with all that they call", whole),
        ("Darkroom's own, with all that they call", ours),
    ]
    return f"{total} samples\n" + "".join(_listed(title, counted, total) for title, counted in parts)


def _listed(title: str, counted: Counter[str], total: int) -> str:
    lines = (f"{100 * times / total:6.1f} %  {name}" for name, times in counted.most_common(SHOWN))
    return f"\n{title}\n" + "\n".join(lines) + "\n"


def _function(frame: str) -> str:
    # `name (path:line)`: the line differs within a function.
    name, _, place = frame.rpartition(" (")
    path = place.rpartition(":")[0].split("site-packages/")[-1]
    return f"{name} ({path})"
