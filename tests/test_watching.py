"""What Darkroom is watched with names metrics that there are, and says what to do about each alert."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import typer.main
import yaml
from prometheus_client.parser import text_string_to_metric_families

from receiver.cli import app
from receiver.metrics_table import GATEWAY, METRICS, Listed
from receiver.settings_table import settings_table
from tests.live import IMAGEN, ULTRA, Live
from tests.running import ROOT

DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "darkroom.json"
OPERATIONS = DEPLOY / "OPERATIONS.md"
SCRAPED = {"job", "instance"}
"""The labels that Prometheus adds."""


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def shown() -> Iterator[tuple[str, str]]:
    """Every question of the dashboard, with its panel's title; Grafana's own words are filled in."""
    for panel in panels():
        for target in panel.get("targets", ()):
            question = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
            yield panel["title"], question


QUESTIONS = [(rule["alert"], rule["expr"]) for rule in rules()] + list(shown())


def selectors(question: str) -> Iterator[promql_parser.VectorSelector]:
    found: list[promql_parser.VectorSelector] = []

    def visit(part: Any) -> Any:
        if isinstance(part, promql_parser.VectorSelector):
            found.append(part)
        for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
            if (inner := getattr(part, name, None)) is not None and not isinstance(inner, str):
                visit(inner)
        for inner in getattr(part, "args", None) or ():
            visit(inner)

    visit(promql_parser.parse(question))
    assert found, question
    yield from found


def listed(name: str) -> Listed:
    known = {metric.name: metric for metric in METRICS}
    plain = re.sub(r"_(bucket|sum|count)$", "", name)
    if plain in known and known[plain].kind == "histogram":
        return known[plain]
    return known[name]


def matching(selector: promql_parser.VectorSelector, live: Live) -> int:
    """How many lines of the page of a running service a selector selects."""
    number = 0
    for family in text_string_to_metric_families(live.http.get("/metrics").text):
        for sample in family.samples:
            labels = {**sample.labels, "job": "darkroom", "instance": "here"}
            if sample.name == selector.name and all(fits(one, labels) for one in matchers(selector)):
                number += 1
    return number


def matchers(selector: promql_parser.VectorSelector) -> list[promql_parser.Matcher]:
    return list(selector.matchers.matchers)


def fits(one: promql_parser.Matcher, labels: dict[str, str]) -> bool:
    value, op = labels.get(one.name, ""), str(one.op).rpartition(".")[2]
    return {
        "Equal": value == one.value,
        "NotEqual": value != one.value,
        "Re": re.fullmatch(one.value, value) is not None,
        "NotRe": re.fullmatch(one.value, value) is None,
    }[op]


@pytest.mark.parametrize(("where", "question"), QUESTIONS, ids=[where for where, _ in QUESTIONS])
def test_what_is_asked_for_exists(where: str, question: str) -> None:
    for selector in selectors(question):
        if selector.name == "up":
            continue
        metric = listed(str(selector.name))
        labels = {label.name: label for label in metric.labels}
        extra = {"le"} if metric.kind == "histogram" else set()
        for one in matchers(selector):
            assert one.name in labels.keys() | SCRAPED | extra, (where, one.name)
            known = labels[one.name].values if one.name in labels else frozenset()
            named = re.split(r"\|", one.value) if re.fullmatch(r"[\w|]+", one.value) else []
            if known and labels[one.name] is not GATEWAY:
                assert set(named) <= known, (where, one.value)


@pytest.mark.parametrize(("where", "question"), QUESTIONS, ids=[where for where, _ in QUESTIONS])
def test_what_is_asked_for_is_on_the_page_of_a_running_service(live: Live, where: str, question: str) -> None:
    # What only ever happens to happen is not asked for: each metric with known labels begins at 0.
    if not live.http.get("/v1/jobs").json()["jobs"]:
        for body in (IMAGEN, ULTRA):
            live.make(body)
    for selector in selectors(question):
        assert selector.name == "up" or matching(selector, live), (where, selector.name)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_rules_are_ones_that_prometheus_takes(rule: dict[str, Any]) -> None:
    # https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Darkroom[A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"[0-9]+m", rule.get("for", "1m"))
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"OPERATIONS.md#{rule['alert'].lower()}"
    for text in rule["annotations"].values():
        for label in re.findall(r"\$labels\.(\w+)", text):
            assert re.search(rf"by \([^)]*\b{label}\b|up{{", rule["expr"]) or label in SCRAPED, label


def test_each_alert_has_a_section_that_says_what_to_do() -> None:
    text = OPERATIONS.read_text()
    sections = re.findall(r"^### (Darkroom\w+)$", text, re.MULTILINE)
    assert sections == [rule["alert"] for rule in rules()]
    for section in re.split(r"^### Darkroom\w+$", text, flags=re.MULTILINE)[1:]:
        words = re.split(r"^##+ ", section, flags=re.MULTILINE)[0].split()
        assert len(words) > 20


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert board["uid"] == "darkroom"
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "instance"}
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    for one, other in combinations([panel["gridPos"] for panel in panels()], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    for panel in panels():
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["description"]


@pytest.mark.parametrize("path", [OPERATIONS, ALERTS], ids=lambda path: path.name)
def test_settings_and_commands_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    named = set(re.findall(r"DARKROOM_[A-Z0-9_]+(?![A-Z0-9_*])", text))
    assert named - {"DARKROOM_URL", "DARKROOM_TOKEN"} <= {row.variable for row in settings_table()}
    commands = set(getattr(typer.main.get_command(app), "commands"))  # noqa: B009
    used = set(re.findall(r"(?:^|`|\$ )darkroom ([a-z][a-z-]+)", text, re.MULTILINE))
    assert used <= commands, used - commands


def test_links_lead_somewhere() -> None:
    text = OPERATIONS.read_text()
    anchors = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("http"):
            assert (DEPLOY / target.partition("#")[0]).exists(), target
