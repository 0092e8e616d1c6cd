"""The shape of the code, held to what the README says of it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("receiver", "storage")
TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "receiver", "storage", "tests", "deploy"}

MOST_LINES = 500
LONGEST_FUNCTION = 60
LONGER_FUNCTIONS: dict[str, str] = {
    "storage/migrations/versions/0001_first.py:upgrade": "a list of columns, written once and never changed",
}
"""A function that may be longer than `LONGEST_FUNCTION`, as `file:name`, and why."""


def _files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def _module(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def _imports(path: Path) -> Iterator[str]:
    """What a module imports of ours as it is loaded; imports inside functions do not count."""
    modules = {_module(file) for file in _files()}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in names)


def _everything_imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def _functions() -> Iterator[tuple[str, int]]:
    for path in _files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{path.relative_to(ROOT)}:{node.name}", node.end_lineno - node.lineno + 1


def test_storage_knows_nothing_of_the_receiver() -> None:
    for path in (ROOT / "storage").rglob("*.py"):
        imported = _everything_imported(path)
        assert not [name for name in imported if name.split(".")[0] == "receiver"], path


def test_adapters_know_neither_each_other_nor_how_to_send() -> None:
    gateways = ROOT / "receiver" / "gateways"
    for name, other in (("apiframe", "api_in_one"), ("api_in_one", "apiframe")):
        source = (gateways / f"{name}.py").read_text()
        imported = _everything_imported(gateways / f"{name}.py")
        assert f"receiver.gateways.{other}" not in imported
        assert "httpx.Client" not in source


def test_the_sandbox_is_written_without_the_adapters() -> None:
    for path in (ROOT / "receiver" / "sandbox").rglob("*.py"):
        imported = _everything_imported(path)
        assert not [name for name in imported if name.startswith(("receiver.gateways", "receiver.signing"))]


def test_no_import_goes_round_in_a_circle() -> None:
    graph = {_module(path): set(_imports(path)) - {_module(path)} for path in _files()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for imported in graph.get(module, ()):
                visit(imported, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_top_level_holds_what_the_design_says_and_nothing_else() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so there is no telling what belongs to it")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} == TOP_LEVEL


def test_files_stay_within_their_budget() -> None:
    for path in _files():
        lines = len(path.read_text().splitlines())
        assert lines <= MOST_LINES, f"{path}: {lines} lines"


def test_functions_stay_within_their_budget() -> None:
    lengths = dict(_functions())
    too_long = {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION}
    assert set(too_long) <= set(LONGER_FUNCTIONS), too_long
    short = sum(lines <= 20 for lines in lengths.values())
    assert short >= 0.8 * len(lengths), f"only {short} of {len(lengths)} have 20 lines or fewer"


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
    ],
    ids=["lint", "format", "types"],
)
def test_the_code_passes(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
