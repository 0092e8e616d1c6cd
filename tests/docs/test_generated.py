"""What is generated equals what the generator writes."""

import re

import pytest

from tests.docs.generate import OF_JOBS, PAGES, TABLES, declared_tables, gateway_tables, stale
from tests.support.processes import ROOT

pytestmark = pytest.mark.smoke


def test_pages_are_what_the_generator_writes() -> None:
    assert stale() == [], "run: python -m tests.docs.generate"
    assert sorted(name for names in PAGES.values() for name in names) == sorted(TABLES)


def test_the_readme_names_every_gateway() -> None:
    text = (ROOT / "README.md").read_text()
    assert [one.title for one in (*gateway_tables(), *declared_tables()) if one.title not in text] == []


def test_job_errors_are_all_there() -> None:
    sources = [path.read_text() for path in (ROOT / "receiver").rglob("*.py")]
    made = {name for source in sources for name in re.findall(r'JobError\(\s*"(\w+)"', source)}
    assert made == set(OF_JOBS)
