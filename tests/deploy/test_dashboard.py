"""The Grafana dashboard: what it asks for is there, and Grafana can lay it out. Grafana itself is not run."""

import re

from tests.deploy.watched import LISTED, Series, absent, dashboard, panels, selectors, targets

ASKED = list(targets())


def test_only_variables_that_there_are_stand_in_it() -> None:
    made = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert made == {"datasource", "instance"}
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            used = set(re.findall(r"\$\{?(\w+)", target["expr"]))
            assert used <= made | {"__rate_interval", "__range"}, panel["title"]


def test_it_can_be_narrowed_to_a_process() -> None:
    for title, asked in ASKED:
        for selector in selectors(asked):
            ledgers = selector.metric in LISTED and LISTED[selector.metric].read
            narrowed = ("instance", "=~", ".*") in selector.matchers
            assert narrowed or ledgers, f"{title}: {selector.name}"


def test_what_it_asks_for_is_there(shown: list[Series]) -> None:
    assert len(ASKED) > 40
    assert [(title, fault) for title, asked in ASKED for fault in absent(asked, shown)] == []


def test_the_variable_lists_processes() -> None:
    (instance,) = (one for one in dashboard()["templating"]["list"] if one["name"] == "instance")
    metric = re.fullmatch(r"label_values\((\w+), instance\)", instance["query"]["query"])
    assert metric is not None
    assert metric[1] in LISTED
