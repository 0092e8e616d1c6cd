"""deploy/SCALE.md, held to its own arithmetic and to what it names.

That the simulation is right about locks and backlogs is checked in tests/docs/test_simulation.py.
"""

from __future__ import annotations

import importlib.util
import re

import pytest

from tests.support.processes import ROOT

PAGE = ROOT / "deploy/SCALE.md"
TEXT = PAGE.read_text(encoding="utf-8")
PRICE_TO_WRITE, PRICE_TO_READ, PRICE_TO_KEEP = 0.005 / 1000, 0.0004 / 1000, 0.023
IMAGES_OF_A_JOB = 2


def rows(head: str) -> dict[str, list[str]]:
    """The rows of the table with that head, by their first cell."""
    lines = TEXT[TEXT.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {first: rest for first, *rest in cells}


def numbers(head: str) -> dict[str, list[float]]:
    return {
        name: [float(cell.replace(",", "")) for cell in cells if re.fullmatch(r"[\d,.]+", cell)]
        for name, cells in rows(head).items()
    }


@pytest.mark.parametrize("column", [0, 1])
def test_the_sums_are_right(column: int) -> None:
    of_one = {name: values[0] for name, values in numbers("Of one job").items()}
    found = {name: values[column] for name, values in numbers("| A day of 1,000 callbacks a second").items()}
    jobs, writing = found["jobs"], of_one["writing requests to the bucket"]
    reading, stored = of_one["reading requests to the bucket"], of_one["bytes in the bucket"]
    assert jobs in (24 * 3600 * 1000, 10**9 / IMAGES_OF_A_JOB)
    expected = {
        "jobs": jobs,
        "images": jobs * IMAGES_OF_A_JOB,
        "rows": jobs * of_one["rows in the ledger"],
        "ledger in PostgreSQL, in GB": jobs
        * of_one["bytes of a ledger in PostgreSQL, indexes included"]
        / 1e9,
        "bucket, in TB": jobs * stored / 1e12,
        "requests to the bucket that write": jobs * writing,
        "requests to the bucket that read": jobs * reading,
        "what the requests cost, in USD": jobs * (writing * PRICE_TO_WRITE + reading * PRICE_TO_READ),
        "what a month of keeping it costs, in USD": jobs * stored / 1e9 * PRICE_TO_KEEP,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0.002), name


def test_so_many_processes_follow_from_what_was_measured() -> None:
    (callback, image) = re.findall(r"a callback took ([\d.]+) ms .* an image ([\d.]+) ms", TEXT)[0]
    cores = {name: float(of[0]) for name, of in rows("For 1,000 callbacks a second").items()}
    assert cores == {
        "to take them in": round(float(callback), 1),
        "to archive their 2,000 images": round(2 * float(image)),
    }
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    taken = f"{1000 * float(callback):,.0f} us"
    assert re.search(rf"callbacks: processor time of each, postgresql +\| {taken} ", readme)
    assert re.search(rf"archive: processor time of each, postgresql +\| {image} ms ", readme)


def test_the_simulation_is_as_good_as_is_said() -> None:
    lines = TEXT[TEXT.index("| Writers | Rows |") :].split("\n\n")[0].splitlines()[2:]
    found = [[int(cell.replace(",", "")) for cell in line.strip("|").split("|")] for line in lines]
    most = max(simulated / measured - 1 for *_, measured, simulated in found)
    (said,) = re.findall(r"up to (\d+) % more than PostgreSQL", TEXT)
    assert len(found) >= 6
    assert int(said) == -(-100 * most // 1)  # rounded up


def test_what_it_names_exists() -> None:
    modules = re.findall(r"python -m (tests[\w.]*)", TEXT)
    assert modules
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT) if "://" not in link]
    assert links
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
    anchors = {re.sub(r"\W+", "-", title.lower()) for title in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) <= anchors
