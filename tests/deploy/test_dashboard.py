"""The Grafana dashboard: what it asks for is there, and Grafana can lay it out. Grafana itself is not run."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.deploy.test_alerts import lines_of
from tests.deploy.watched import (
    LISTED,
    TARGET,
    Series,
    dashboard,
    groupings,
    known_values,
    panels,
    selectors,
    targets,
)
from tests.support.live import IMAGEN, Live

ASKED = list(targets())


@pytest.fixture(scope="module")
def shown(live: Live) -> list[Series]:
    assert live.make(IMAGEN)["status"] == "archived"
    return lines_of(live)


def test_only_variables_that_there_are_stand_in_it() -> None:
    made = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert made == {"datasource", "instance"}
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            used = set(re.findall(r"\$\{?(\w+)", target["expr"]))
            assert used <= made | {"__rate_interval", "__range"}, panel["title"]


def test_it_can_be_narrowed_to_a_process_where_a_process_counts() -> None:
    for title, asked in ASKED:
        for selector in selectors(asked):
            ledgers = selector.metric in LISTED and LISTED[selector.metric].read
            narrowed = ("instance", "=~", ".*") in selector.matchers
            assert narrowed or ledgers, f"{title}: {selector.name}"


def absent(asked: str, shown: list[Series]) -> Iterator[str]:
    """Name what an expression asks for that a running service does not show."""
    for labels, below in groupings(asked):
        yield from (f"by {labels}" for one in below if one.name != "up" and not set(labels) <= one.labels)
    for selector in selectors(asked):
        if selector.name == "up":  # Prometheus' own
            continue
        if selector.metric not in LISTED or not any(map(selector.takes, shown)):
            yield selector.name
            continue
        yield from (label for label, _, _ in selector.matchers if label not in selector.labels)
        for label, value in selector.values():
            known = None if label in TARGET else known_values(selector.metric, label)
            if known is not None and value not in known:
                yield f"{label}={value}"


def test_what_it_asks_for_is_there(shown: list[Series]) -> None:
    assert len(ASKED) > 40
    assert [(title, fault) for title, asked in ASKED for fault in absent(asked, shown)] == []


def test_the_variable_lists_processes() -> None:
    (instance,) = (one for one in dashboard()["templating"]["list"] if one["name"] == "instance")
    metric = re.fullmatch(r"label_values\((\w+), instance\)", instance["query"]["query"])
    assert metric is not None
    assert metric[1] in LISTED
