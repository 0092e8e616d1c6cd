"""What `deploy/` watches with: the alert rules, the dashboard, and what their PromQL asks for."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import promql_parser as promql
import yaml

from receiver.telemetry.metric_list import METRICS, MetricSpec
from tests.support.running import ROOT

RULES = ROOT / "deploy/prometheus/alerts.yaml"
DASHBOARD = ROOT / "deploy/grafana/darkroom.json"
OPERATIONS = ROOT / "deploy/OPERATIONS.md"

LISTED: Mapping[str, MetricSpec] = {metric.name: metric for metric in METRICS}
TARGET = frozenset({"job", "instance"})
"""The labels that Prometheus itself gives to what it reads."""

Series = tuple[str, Mapping[str, str]]
"""A line of the metrics' page: its name and labels."""


@dataclass(frozen=True)
class Selector:
    """What PromQL selects: `name{label="value"}`."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    """Label, operator and text of each."""

    @property
    def metric(self) -> str:
        """The metric on the list that it is a series of."""
        base = re.sub(r"_(bucket|sum|count)$", "", self.name)
        return base if base in LISTED and LISTED[base].kind == "histogram" else self.name

    @property
    def labels(self) -> frozenset[str]:
        """The labels that its series have."""
        own = frozenset(label.name for label in LISTED[self.metric].labels)
        return own | TARGET | ({"le"} if self.name.endswith("_bucket") else frozenset())

    def takes(self, series: Series) -> bool:
        """Whether it selects a line of the page; what Prometheus adds to the line is not looked at."""
        name, labels = series
        ours = (matcher for matcher in self.matchers if matcher[0] not in TARGET)
        return name == self.name and all(_fits(labels.get(label, ""), op, text) for label, op, text in ours)

    def values(self) -> Iterator[tuple[str, str]]:
        """Each label and each value of it that is named."""
        for label, op, text in self.matchers:
            yield from ((label, value) for value in (text.split("|") if "~" in op else [text]))


def _fits(value: str, op: str, text: str) -> bool:
    same = bool(re.fullmatch(text, value)) if "~" in op else value == text
    return same == ("!" not in op)


def _written(op: promql.MatchOp) -> str:
    kinds = promql.MatchOp
    written = (("=", kinds.Equal), ("!=", kinds.NotEqual), ("=~", kinds.Re), ("!~", kinds.NotRe))
    return next(text for text, kind in written if kind == op)


def selectors(expression: str) -> list[Selector]:
    """Every selector of an expression. Raises ValueError if it is no PromQL."""
    found: list[Selector] = []

    def visit(node: promql.Expr) -> None:
        if isinstance(node, promql.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql.VectorSelector):
            assert node.name is not None, f"{node} has no name"
            matchers = tuple((one.name, _written(one.op), one.value) for one in node.matchers.matchers)
            found.append(Selector(node.name, matchers))

    promql.walk(promql.parse(expression), visit)
    return list(dict.fromkeys(found))


def groupings(expression: str) -> Iterator[tuple[list[str], list[Selector]]]:
    """The labels of every `by (...)`, with what is added up there."""
    found: list[promql.AggregateExpr] = []

    def visit(node: promql.Expr) -> None:
        if isinstance(node, promql.AggregateExpr):
            found.append(node)

    promql.walk(promql.parse(expression), visit)
    for one in found:
        yield (one.modifier.labels if one.modifier else []), selectors(one.expr.prettify())


def known_values(metric: str, label: str) -> frozenset[str] | None:
    """The values that a label may have, or None if they are not known beforehand."""
    (found,) = (one for one in LISTED[metric].labels if one.name == label)
    return frozenset(map(str, found.values)) or None


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


def alerts() -> list[dict[str, Any]]:
    """Every alert rule."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return read


def panels() -> list[dict[str, Any]]:
    """Every panel that shows something; rows are not among them."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


VARIABLES = {"$__rate_interval": "5m", "$__range": "6h", "$instance": ".*"}
"""What Grafana puts in; the first two are its own."""


def targets() -> Iterator[tuple[str, str]]:
    """Each expression of the dashboard as Prometheus is sent it, with the panel's title."""
    for panel in panels():
        for target in panel["targets"]:
            asked = target["expr"]
            for variable, value in VARIABLES.items():
                asked = asked.replace(variable, value)
            yield panel["title"], asked


def anchor(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(text: str) -> list[str]:
    """Every anchor of a page."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [anchor(title) for title in re.findall(r"^#+ (.+)$", outside, re.MULTILINE)]
