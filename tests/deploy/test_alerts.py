"""The alert rules: they ask for what there is, fire when they should, and lead to what to do then."""

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.alert_cases import CASES, HEALTHY
from tests.deploy.watched import (
    RULES,
    TARGET,
    Selector,
    Series,
    absent,
    alerts,
    groupings,
    selectors,
)
from tests.docs.test_readme import need

ALERTS = alerts()
OURS = [rule for rule in ALERTS if not rule["expr"].startswith("up{")]
"""Those that look at what Darkroom says; `up` is Prometheus' own."""


def name(rule: dict[str, Any]) -> str:
    return str(rule["alert"])


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


def test_labels_of_processes_say_which_job() -> None:
    # Every program in Python has these metrics.
    for alert, selector in all_selectors(ALERTS):
        if not selector.name.startswith("darkroom_"):
            assert [one[0] for one in selector.matchers] == ["job"], alert


def test_labels_that_are_told_are_there() -> None:
    for rule in OURS:
        groups = list(groupings(rule["expr"]))
        told = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        # Of an `and` the left side is what comes out.
        assert told <= (set(groups[0][0]) if groups else TARGET), name(rule)


def test_what_they_look_at_is_there(shown: list[Series]) -> None:
    assert [(name(rule), fault) for rule in OURS for fault in absent(rule["expr"], shown)] == []
    for alert, selector in all_selectors(OURS):
        for label, value in selector.values():
            if label not in TARGET:
                there = (labels.get(label) == value for of, labels in shown if of == selector.name)
                assert any(there), (alert, label, value)


def test_every_alert_fires_in_some_case() -> None:
    assert {alert for case in CASES.values() for alert in case.fire} == {name(rule) for rule in ALERTS}


def firing(alerts: Iterable[str]) -> dict[str, Any]:
    """What Prometheus is to show after two hours."""
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)]
    asked = 'count by (alertname) (ALERTS{alertstate="firing"})'
    return {"expr": asked, "eval_time": "119m", "exp_samples": samples}


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    need("promtool", "--version")
    tests = []
    for case in CASES.values():
        given = {series: values for series, values in {**HEALTHY, **case.changed}.items() if values}
        series = [{"series": name, "values": values} for name, values in given.items()]
        tests.append({"interval": "1m", "input_series": series, "promql_expr_test": [firing(case.fire)]})
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", str(file))


def test_prometheus_reads_the_file() -> None:
    need("promtool", "--version")
    assert f"SUCCESS: {len(ALERTS)} rules found" in promtool("check", "rules", str(RULES))


def promtool(*words: str) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
