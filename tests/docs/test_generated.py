"""What is generated equals what the generator writes."""

import re

import pytest

from tests.docs.generate import OF_JOBS, PAGES, TABLES, stale
from tests.support.processes import ROOT

pytestmark = pytest.mark.smoke


def test_pages_are_what_the_generator_writes() -> None:
    assert stale() == [], "run: python -m tests.docs.generate"
    assert sorted(name for names in PAGES.values() for name in names) == sorted(TABLES)


def test_job_errors_are_all_there() -> None:
    sources = [path.read_text() for path in (ROOT / "receiver").rglob("*.py")]
    made = {name for source in sources for name in re.findall(r'JobError\(\s*"(\w+)"', source)}
    assert made == set(OF_JOBS)
