"""The Grafana dashboard: what it asks for is there, and Grafana can lay it out. Grafana itself is not run."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

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
UNITS = {"short", "s", "bytes", "Bps", "ops", "reqps", "percentunit", "bool_yes_no"}
"""Names that Grafana has for units, in packages/grafana-data/src/valueFormats/categories.ts."""

Panel = dict[str, Any]


@pytest.fixture(scope="module")
def shown(live: Live) -> list[Series]:
    assert live.make(IMAGEN)["status"] == "archived"
    return lines_of(live)


def test_each_panel_has_its_own_id_title_and_unit() -> None:
    every = dashboard()["panels"]
    ids = [panel["id"] for panel in every]
    titles = [panel["title"] for panel in every]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles) > 40
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters) > 0


def test_no_panel_lies_on_another() -> None:
    def cells(panel: Panel) -> set[tuple[int, int]]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        return {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }

    for one, other in combinations(dashboard()["panels"], 2):
        assert not cells(one) & cells(other), (one["title"], other["title"])


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


@pytest.mark.parametrize(
    ("title", "asked"), ASKED, ids=[f"{n} {title}" for n, (title, _) in enumerate(ASKED)]
)
def test_what_it_asks_for_is_there(title: str, asked: str, shown: list[Series]) -> None:
    for labels, below in groupings(asked):
        assert all(set(labels) <= selector.labels for selector in below if selector.name != "up")
    for selector in selectors(asked):
        if selector.name == "up":  # Prometheus' own
            continue
        assert selector.metric in LISTED
        assert {label for label, _, _ in selector.matchers} <= selector.labels
        assert any(map(selector.takes, shown)), selector
        for label, value in selector.values():
            if label not in TARGET:
                known = known_values(selector.metric, label)
                assert known is None or value in known, f"{label}={value}"


def test_legends_name_labels_that_are_left() -> None:
    for panel in panels():
        for target in panel["targets"]:
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            groups = list(
                groupings(target["expr"].replace("$__rate_interval", "5m").replace("$__range", "6h"))
            )
            left = set(groups[0][0]) if groups else TARGET
            assert named <= left, panel["title"]


def test_the_variable_lists_processes() -> None:
    (instance,) = (one for one in dashboard()["templating"]["list"] if one["name"] == "instance")
    metric = re.fullmatch(r"label_values\((\w+), instance\)", instance["query"]["query"])
    assert metric is not None
    assert metric[1] in LISTED
