"""Start `darkroom`: `serve` and `work` straight away, every other command through Typer.

Typer and Rich take a quarter of a second and 15 MiB, and a process that serves has no use for either.
"""

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from receiver.cli import run


def _port(word: str) -> int:
    port = int(word) if word.isdecimal() else -1
    if not 0 <= port <= 65535:
        raise ValueError("not a port")
    return port


def _processes(word: str) -> int:
    number = int(word) if word.isdecimal() else 0
    if not 1 <= number <= run.MOST_PROCESSES:
        raise ValueError("not a number of processes")
    return number


def _role(word: str) -> str:
    if word not in {"callbacks", "api"}:
        raise ValueError("not a role")
    return word


_OPTIONS: Mapping[str, Mapping[str, Callable[[str], Any]]] = {
    "serve": {"host": str, "port": _port, "only": _role, "processes": _processes},
    "work": {"port": _port},
}
_FLAGS: Mapping[str, Mapping[str, tuple[str, bool]]] = {
    "serve": {"--work": ("work", True), "--no-work": ("work", False)},
    "work": {},
}


def plainly_given(arguments: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    """Return the command `serve` or `work` with its options, as its function takes them.

    None where there is anything that Typer has to judge: another command, help, or a mistake.
    """
    command, *words = arguments or [""]
    if command not in _OPTIONS:
        return None
    given: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        if word in _FLAGS[command]:
            name, value = _FLAGS[command][word]
        else:
            option, joined, text = word.partition("=")
            name = option.removeprefix("--")
            if name == option or name not in _OPTIONS[command]:
                return None
            try:
                value = _OPTIONS[command][name](text if joined else next(rest))
            except (ValueError, StopIteration):
                return None
        given[name] = value
    return command, given


def lean(*, only_callbacks: bool = False) -> None:
    """Load the libraries that would load Rich, for tracebacks and a command line of their own, without it.

    `only_callbacks`: those of a process that takes callbacks alone, and requests nothing itself.
    """
    without: dict[str, Any] = dict.fromkeys(("pygments", "rich"))
    sys.modules.update(without)
    try:
        import structlog  # noqa: F401

        if not only_callbacks:
            import httpx  # noqa: F401
    finally:
        for name in without:
            del sys.modules[name]


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot show a character shows a question mark instead.
            stream.reconfigure(errors="replace")
    given = plainly_given(sys.argv[1:])
    if given is None:
        from receiver.cli.commands import app

        app(prog_name="darkroom")
        return
    gc.disable()  # nothing that is loaded is garbage; `run` turns it on
    command, values = given
    lean(only_callbacks=values.get("only") == "callbacks")
    {"serve": run.serve, "work": run.work}[command](**values)
