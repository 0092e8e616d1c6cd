"""Every page: its links lead somewhere, and its commands and settings exist."""

import re
import shlex
from collections.abc import Iterator

import pytest
import typer.main

from receiver.cli.commands import app
from tests.deploy.watched import alerts, anchors
from tests.support.running import ROOT

TOPICS = ROOT / "receiver" / "api" / "docs" / "topics"
FILES = (ROOT / "README.md", *(ROOT / "deploy").rglob("*.md"), *TOPICS.glob("*.md"))
PAGES = {str(path.relative_to(ROOT)): path for path in FILES}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[str]:
    shell = [body for language, body in FENCE.findall(text) if language in {"bash", "sh"}]
    for part in [*shell, *re.findall(r"`([^`\n]+)`", FENCE.sub("", text))]:
        yield from re.findall(r"(?:^|[/ ])darkroom ([a-z][^\n|>;]*)", part, re.MULTILINE)


def misgiven(line: str) -> str | None:
    """Read every word as the command would, and run nothing; return what is wrong."""
    group = typer.main.get_command(app)
    words = [word for word in shlex.split(line, comments=True) if word not in {"...", "\\\n"}]
    try:
        with group.make_context("darkroom", words) as context:
            name, command, rest = group.resolve_command(context, words)  # type: ignore[attr-defined]
            command.make_context(name, rest, parent=context, resilient_parsing=not rest)
    except Exception as error:  # noqa: BLE001 - whatever it is, the page is wrong
        if "requires an argument" in str(error):
            return None  # only the option is mentioned
        return f"darkroom {line}: {error}"
    return None


@pytest.mark.parametrize("page", PAGES)
def test_commands_can_be_given(page: str) -> None:
    assert [wrong for line in commands(PAGES[page].read_text()) if (wrong := misgiven(line))] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = PAGES[page].read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", FENCE.sub("", text)) if "://" not in link]
    broken = []
    for link in links:
        path, _, anchor = link.partition("#")
        to = (PAGES[page].parent / path) if path else PAGES[page]
        if not to.exists() or (anchor and to.suffix == ".md" and anchor not in anchors(to.read_text())):
            broken.append(link)
    assert broken == []


def test_runbooks_lead_to_the_section_of_their_alert() -> None:
    for rule in alerts():
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor == rule["alert"].lower()
        assert anchor in anchors((ROOT / path).read_text()), rule["alert"]
