"""`darkroom help`: explain a topic or a command; `darkroom version`: print the version."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from receiver.cli import completion
from receiver.cli.console import MISUSED, fail, out, print_facts
from receiver.cli.options import argument
from receiver.version import installed_version

if TYPE_CHECKING:
    from receiver.errors import DarkroomError

GUIDES = files("receiver") / "api" / "docs" / "topics"
"""A Markdown file for each topic; `/docs` shows the same texts."""
WIDTH = 100
"""The most columns of a text, so that its lines are easy to read."""


def _complete(ctx: typer.Context, incomplete: str) -> completion.Offer:
    commands = getattr(ctx.parent.command, "commands", {}) if ctx.parent else {}
    return completion.matching([(name, "") for name in [*topics(), *commands]], incomplete)


Words = Annotated[list[str] | None, argument("TOPIC|COMMAND", "What to explain.", autocompletion=_complete)]


def help_(context: typer.Context, words: Words = None) -> None:
    """Explain a topic, or a command and its options."""
    assert context.parent is not None
    app, known = context.parent.command, topics()
    topic, *below = words or [""]
    commands = getattr(app, "commands", {})
    if topic in known and not below:
        known[topic]()
        if topic in commands:
            out().print(Text(f"\nThe options of the command: darkroom {topic} --help", "dim"))
    elif topic in commands:
        app.main([topic, *below, "--help"], prog_name="darkroom")
    elif words:
        names = ", ".join(known)
        fail(f"No topic or command is called {topic}. Topics: {names}. Commands: darkroom --help", MISUSED)
    else:
        typer.echo(context.parent.get_help())
        out().print(Text("Topics, to read with darkroom help TOPIC:", "bold"))
        out().print(Text(f"  {', '.join(known)}\n"))


def topics() -> Mapping[str, Callable[[], None]]:
    """Return what prints each topic, by the topic's name."""
    guides = sorted(GUIDES.iterdir(), key=lambda file: file.name) if GUIDES.is_dir() else []
    return {
        **{file.name.removesuffix(".md"): partial(_print_guide, file) for file in guides},
        "errors": _print_errors,
        "settings": _print_settings,
    }


def version() -> None:
    """Print the version."""
    typer.echo(f"darkroom {installed_version()}")


def _print_guide(file: Traversable) -> None:
    _print_markdown(re.sub(r"<!--.*?-->\n*", "", file.read_text(encoding="utf-8")))


def _print_settings() -> None:
    from receiver.cli.config import print_settings, settings_table

    print_settings(settings_table())
    out().print(Text("\nThe values on this machine: darkroom config", "dim"))


def _print_errors() -> None:
    """Print every error code with its meaning, in the groups of `receiver.errors`."""
    from receiver.errors import DarkroomError

    for group in DarkroomError.__subclasses__():
        leaves = [error for error in _tree(group) if error.code != DarkroomError.code]
        out().print(Text(_summary(group), "bold"))
        print_facts([(f"  {error.code}", f"{_summary(error)} Fault: {error.at_fault}.") for error in leaves])
        out().print()


def _tree(error: type[DarkroomError]) -> Iterator[type[DarkroomError]]:
    yield error
    for below in error.__subclasses__():
        yield from _tree(below)


def _summary(error: type[DarkroomError]) -> str:
    """Return the first sentence of an error's docstring."""
    first = " ".join((inspect.getdoc(error) or "").partition("\n\n")[0].split())
    return first.partition(". ")[0].removesuffix(".") + "."


def _print_markdown(text: str) -> None:
    console = out()
    if not console.is_terminal:
        typer.echo(text.strip())
        return
    from rich.markdown import Markdown

    console.print(Markdown(text), width=min(console.width, WIDTH))
