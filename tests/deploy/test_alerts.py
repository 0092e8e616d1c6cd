"""The alert rules: they ask for what there is, fire when they should, and lead to what to do then."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.alert_cases import CASES, HEALTHY
from tests.deploy.watched import (
    LISTED,
    RULES,
    TARGET,
    Selector,
    Series,
    alerts,
    groupings,
    known_values,
    selectors,
)
from tests.docs.test_readme import need
from tests.support.live import IMAGEN, Live

ALERTS = alerts()
OURS = [rule for rule in ALERTS if not rule["expr"].startswith("up{")]
"""Those that look at what Darkroom says; `up` is Prometheus' own."""


def name(rule: dict[str, Any]) -> str:
    return str(rule["alert"])


def lines_of(live: Live) -> list[Series]:
    page = live.http.get("/metrics").text
    return [
        (sample.name, sample.labels)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]


@pytest.fixture(scope="module")
def shown(live: Live) -> list[Series]:
    """Every line of a running service's page, after a job and its callback."""
    assert live.make(IMAGEN)["status"] == "archived"
    return lines_of(live)


def test_the_file_has_the_shape_of_rules() -> None:
    assert set(yaml.safe_load(RULES.read_text())) == {"groups"}
    names = [name(rule) for rule in ALERTS]
    assert len(set(names)) == len(names) > 30
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}


def all_selectors(rules: list[dict[str, Any]]) -> Iterator[tuple[str, Selector]]:
    for rule in rules:
        yield from ((name(rule), selector) for selector in selectors(rule["expr"]))


def test_metrics_and_labels_that_are_named_are_on_the_list() -> None:
    for alert, selector in all_selectors(OURS):
        assert selector.metric in LISTED, f"{alert}: {selector.name}"
        assert {label for label, _, _ in selector.matchers} <= selector.labels, alert
        for label, value in selector.values():
            if label not in TARGET:
                known = known_values(selector.metric, label)
                assert known is None or value in known, f"{alert}: {label}={value}"


def test_labels_of_processes_say_which_job() -> None:
    # Every program in Python has these metrics.
    for alert, selector in all_selectors(ALERTS):
        if not selector.name.startswith("darkroom_"):
            assert [one[0] for one in selector.matchers] == ["job"], alert


def test_labels_that_are_grouped_by_or_told_are_there() -> None:
    for rule in OURS:
        groups = list(groupings(rule["expr"]))
        for labels, below in groups:
            assert all(set(labels) <= selector.labels for selector in below), name(rule)
        told = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        # Of an `and` the left side is what comes out.
        assert told <= (set(groups[0][0]) if groups else TARGET), name(rule)


def test_what_they_look_at_is_there_in_a_running_service(shown: list[Series]) -> None:
    for alert, selector in all_selectors(OURS):
        assert any(map(selector.takes, shown)), (alert, selector)
        for label, value in selector.values():
            if label not in TARGET:
                there = (labels.get(label) == value for of, labels in shown if of == selector.name)
                assert any(there), (alert, label, value)


def test_every_alert_fires_in_some_case() -> None:
    assert {alert for case in CASES.values() for alert in case.fire} == {name(rule) for rule in ALERTS}


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    need("promtool", "--version")
    tests = [
        {
            "interval": "1m",
            "input_series": [
                {"series": series, "values": values}
                for series, values in {**HEALTHY, **case.changed}.items()
                if values
            ],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": "119m",
                    "exp_samples": [
                        {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(case.fire)
                    ],
                }
            ],
        }
        for case in CASES.values()
    ]
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_file(tmp_path: Path) -> None:
    need("promtool", "--version")
    done = subprocess.run(
        ["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, timeout=60, check=False
    )
    assert f"SUCCESS: {len(ALERTS)} rules found" in done.stdout, done.stdout + done.stderr
