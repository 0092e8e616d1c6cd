"""Select the tests of a run: each feature once by default, and everything with `--all`.

A test is exhaustive by its folder or by the marker `exhaustive`; the marker `smoke` keeps a few of such a
folder in the default run. What the command line names runs in any case: a file, a test, a folder, `-k`, `-m`.
Tests that depend on the clock or on a browser are repeated once when they fail, and listed.
"""

from pathlib import Path

import hypothesis
import pytest

EXHAUSTIVE_FOLDERS = frozenset({"browser", "deploy", "docs", "faults"})
LEFT_OUT = pytest.StashKey[int]()
LEFT_OUT_OF_WORKER = "left_out"
WORKERS = 3
EXAMPLES = 30
"""How many examples hypothesis tries for a test by default; with `--all` as many as it would itself."""
TESTS = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the exhaustive tests too")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--all"):
        hypothesis.settings.register_profile("few", max_examples=EXAMPLES)
        hypothesis.settings.load_profile("few")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes `-n auto` is: tests wait half of their time, so three fit on two cores."""
    return WORKERS


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).parts[0]


def _exhaustive(item: pytest.Item) -> bool:
    params = item.callspec.params.values() if hasattr(item, "callspec") else ()
    for mark in item.iter_markers("exhaustive"):
        if not mark.args or set(mark.args) & {one for one in params if isinstance(one, str)}:
            return True
    return _folder(item) in EXHAUSTIVE_FOLDERS and not item.get_closest_marker("smoke")


def _named(item: pytest.Item, config: pytest.Config) -> bool:
    """Return whether the command line names this test, its file, or an exhaustive folder that it is in."""
    for argument in config.args:
        path = (config.invocation_params.dir / argument.partition("::")[0]).resolve()
        if path == item.path or (path != TESTS and path in item.path.parents and _in_exhaustive(path)):
            return True
    return False


def _in_exhaustive(path: Path) -> bool:
    return path.is_relative_to(TESTS) and path.relative_to(TESTS).parts[0] in EXHAUSTIVE_FOLDERS


def _repeatable(item: pytest.Item) -> bool:
    """Return whether a failure may be the clock's or the browser's; never in the fault suite."""
    folder = _folder(item)
    return folder != "faults" and (folder == "browser" or item.get_closest_marker("alone") is not None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if _repeatable(item):
            item.add_marker(pytest.mark.flaky(reruns=1))
    if config.getoption("--all") or config.getoption("keyword") or config.getoption("markexpr"):
        return
    left_out = [item for item in items if _exhaustive(item) and not _named(item, config)]
    config.stash[LEFT_OUT] = len(left_out)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        without = set(left_out)
        items[:] = [item for item in items if item not in without]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[LEFT_OUT_OF_WORKER] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take over from a worker, which collects the same tests as every other one."""
    output = getattr(node, "workeroutput", {})
    node.config.stash[LEFT_OUT] = output.get(LEFT_OUT_OF_WORKER, 0)  # type: ignore[attr-defined]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.write_line(f"rerun once: {report.nodeid}")
    if left_out := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"{left_out} exhaustive tests were left out: pytest --all runs them")
