"""The shape of the code, held to what the design says of it."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("receiver", "storage")
TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "receiver", "storage", "tests", "deploy"}

MOST_LINES = 500
MOST_MODULES = 22
LONGEST_FUNCTION = 60
LONGER_FUNCTIONS: dict[str, str] = {
    "storage/ledger/migrations/versions/0001_first.py:upgrade": "a list of columns, never changed",
}
"""A function that may be longer than `LONGEST_FUNCTION`, as `file:name`, and why."""
LOADED: dict[str, str] = {
    "httptools": "uvicorn imports it, and http/connection_limits.py extends that",
    "python-multipart": "starlette imports it, where a form has a file",
    "uvloop": "uvicorn imports it, wherever it is installed",
}
"""A dependency that nothing here imports, and what does."""


def _files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def _module(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def _imports(path: Path) -> Iterator[str]:
    """What a module imports of ours, anywhere: also for types only, and inside functions."""
    modules = {_module(file) for file in _files()}
    for node in ast.walk(ast.parse(path.read_text())):
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


def test_adapters_import_neither_each_other_nor_how_to_send() -> None:
    shared = {"base", "client", "parsing", "refusals", "registry", "requests", "__init__"}
    adapters = [path for path in (ROOT / "receiver" / "gateways").glob("*.py") if path.stem not in shared]
    names = {f"receiver.gateways.{path.stem}" for path in adapters if (ROOT / _samples(path)).is_dir()}
    assert len(names) >= 2
    for path in adapters:
        assert not names & (_everything_imported(path) - {_module(path)}), path
        assert "httpx.Client" not in path.read_text(), path


def _is_gateway(path: Path) -> bool:
    return path.parent.name == "gateways" and (ROOT / _samples(path)).is_dir()


def _samples(adapter: Path) -> str:
    return f"tests/samples/{adapter.stem}"


def test_the_sandbox_is_written_without_the_adapters() -> None:
    for path in (ROOT / "receiver" / "sandbox").rglob("*.py"):
        imported = _everything_imported(path)
        assert not [
            name for name in imported if name.startswith(("receiver.gateways", "receiver.callbacks.tokens"))
        ]


def test_the_system_tests_see_an_installed_copy_only() -> None:
    for path in (ROOT / "tests" / "system").rglob("*.py"):
        for name in _everything_imported(path):
            assert name.split(".")[0] not in {*PACKAGES, "", "tests"} or name.startswith("tests.system."), (
                path
            )


def test_no_import_goes_round_in_a_circle() -> None:
    TopologicalSorter({_module(path): set(_imports(path)) - {_module(path)} for path in _files()}).prepare()


def _folder(module: str) -> str:
    """The package of a module; a module that lies in a top package itself stands for itself."""
    path = ROOT.joinpath(*module.split("."))
    if path.is_dir() or len(module.split(".")) == 2:
        return module
    return module.rpartition(".")[0]


def test_no_folder_imports_another_that_imports_it() -> None:
    graph: dict[str, set[str]] = {}
    for path in _files():
        folder = _folder(_module(path))
        imported = {_folder(name) for name in _everything_imported(path) if name.split(".")[0] in PACKAGES}
        graph[folder] = graph.get(folder, set()) | imported - {folder}
    TopologicalSorter(graph).prepare()


def test_no_folder_holds_more_than_a_reader_can_scan() -> None:
    folders = {path.parent for path in _files()} - {ROOT / "receiver" / "cli"}
    # Gateways lie beside what they share, a file each: those are looked for by name.
    counted = [path for folder in folders for path in folder.glob("*.py") if not _is_gateway(path)]
    sizes = Counter(path.parent for path in counted if path.name != "__init__.py")
    assert max(sizes.values()) <= MOST_MODULES, sizes


def test_the_top_level_holds_what_the_design_says_and_nothing_else() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so there is no telling what belongs to it")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} == TOP_LEVEL


def test_every_dependency_is_imported() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.match(r"[\w-]+", one)[0].lower() for one in wanted}  # type: ignore[index]
    imported = {name.split(".")[0] for path in _files() for name in _everything_imported(path)}
    having = packages_distributions()
    used = {name.lower().replace("_", "-") for module in imported for name in having.get(module, ())}
    # Not installed where Python brings it: https://docs.python.org/3/library/compression.zstd.html
    used |= {"backports-zstd"} if "backports" in imported else set()
    assert names - used == set(LOADED)


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


@pytest.mark.exhaustive
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
