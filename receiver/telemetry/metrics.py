"""Count, measure and expose Prometheus metrics, those listed in `receiver.telemetry.metric_list` only."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from time import perf_counter
from typing import Any, TypeVar

import prometheus_client as prometheus
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

from receiver.telemetry.metric_list import GATEWAY, METRICS, Label, MetricSpec
from receiver.telemetry.multiprocess import FOLDER
from receiver.version import installed_version
from storage.errors import StorageError

log = structlog.get_logger("darkroom.metrics")

UNKNOWN = "unknown"
"""The label of a gateway that is not configured: its name may come from a URL that anyone made up."""

prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]  # a line more for every series, and no use here

Values = Mapping[str, float | Mapping[tuple[str, ...], float]]
"""Values by metric; for one with labels by label values, in the order of the list."""
Read = Callable[[], Values]
Count = Callable[[float], None]
Kind = TypeVar("Kind", prometheus.Counter, prometheus.Gauge, prometheus.Histogram)


class Metrics:
    """The metrics of one service. Thread-safe.

    A metric that is not listed, or other labels than listed, raise KeyError or ValueError: a misspelt name
    must fail a test, and not make a second metric.
    """

    def __init__(self, gateways: Collection[str]) -> None:
        """`gateways` are the names of the configured gateways."""
        self._gateways = frozenset(gateways)
        self._listed = {metric.name: metric for metric in METRICS}
        self._registry = self._counted = prometheus.CollectorRegistry()
        if FOLDER in os.environ:
            # What is counted here is shown from the shared files, with what other processes count.
            self._counted = prometheus.CollectorRegistry()
            MultiProcessCollector(self._registry)  # type: ignore[no-untyped-call]
        self._counters: dict[str, prometheus.Counter] = {}
        self._gauges: dict[str, prometheus.Gauge] = {}
        self._histograms: dict[str, prometheus.Histogram] = {}
        self._children: dict[object, Any] = {}
        self._reads: list[Read] = [lambda: {"darkroom_build_info": {(installed_version(),): 1}}]
        for metric in METRICS:
            if not metric.read:
                self._make(metric)
        self._registry.register(self)
        prometheus.ProcessCollector(registry=self._registry)
        prometheus.PlatformCollector(registry=self._registry)

    def count(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """Add to a counter."""
        self._child(name, self._counters, labels).inc(amount)

    def change(self, name: str, amount: float, /, **labels: str) -> None:
        """Add to a gauge, or subtract."""
        self._child(name, self._gauges, labels).inc(amount)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Observe a value, in the unit of the metric's name, in a histogram."""
        self._child(name, self._histograms, labels).observe(value)

    def counter(self, name: str, /, **labels: str) -> Count:
        """Return what adds to one series of a counter, for those who count often."""
        add: Count = self._child(name, self._counters, labels).inc
        return add

    def histogram(self, name: str, /, **labels: str) -> Count:
        """Return what observes values in one series of a histogram."""
        observe: Count = self._child(name, self._histograms, labels).observe
        return observe

    @contextmanager
    def timed(self, name: str, /, **labels: str) -> Iterator[None]:
        """Observe the seconds that the block takes in a histogram, unless it raises."""
        began = perf_counter()
        yield
        self.observe(name, perf_counter() - began, **labels)

    def watch(self, read: Read) -> None:
        """Read values at each scrape; they are left out while `read` raises a StorageError."""
        self._reads.append(read)

    def page(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return prometheus.generate_latest(self._registry)

    def collect(self) -> Iterator[prometheus.Metric]:
        """Yield the metrics that are read at each scrape; prometheus_client calls this."""
        for read in self._reads:
            try:
                values = read()
            except StorageError as error:
                log.warning("metrics not read", why=str(error))
                self.count("darkroom_ledger_errors_total", part="metrics")
                continue
            for name, value in values.items():
                yield self._family(self._listed[name], value)

    def _make(self, metric: MetricSpec) -> None:
        named = (metric.name, metric.sentence, [label.name for label in metric.labels])
        if metric.kind == "histogram":
            histogram = prometheus.Histogram(*named, buckets=metric.buckets, registry=self._counted)
            self._histograms[metric.name] = histogram
        elif metric.kind == "gauge":
            # Of several processes: the sum of those that live.
            self._gauges[metric.name] = prometheus.Gauge(
                *named, registry=self._counted, multiprocess_mode="livesum"
            )
        else:
            self._counters[metric.name] = counter = prometheus.Counter(*named, registry=self._counted)
            # From 0 on, so that the first event is an increase.
            for values in self._every(metric) if metric.labels else ():
                counter.labels(*values)

    def _every(self, metric: MetricSpec) -> Iterator[tuple[str, ...]]:
        """Return every combination of label values, none if they are not known beforehand."""
        return product(
            *(self._gateways if label is GATEWAY else sorted(label.values) for label in metric.labels)
        )

    def _child(self, name: str, kind: Mapping[str, Kind], labels: Mapping[str, str]) -> Kind:
        """Return the series of a metric with these labels, cached."""
        key = (name, *labels.items())
        if (known := self._children.get(key)) is None:
            values = self._values(name, labels)
            known = kind[name].labels(*values) if values else kind[name]
            if values == tuple(labels.values()):  # not a made-up gateway
                self._children[key] = known
        return known

    def _values(self, name: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        metric = self._listed[name]
        if labels.keys() != {label.name for label in metric.labels}:
            raise ValueError(f"{name} has the labels {[label.name for label in metric.labels]}")
        return tuple(self._value(name, label, labels[label.name]) for label in metric.labels)

    def _value(self, name: str, label: Label, value: str) -> str:
        if label is GATEWAY:
            return value if value in self._gateways else UNKNOWN
        if label.values and value not in label.values:
            raise ValueError(f"{name} has no {label.name} {value!r}")
        return value

    def _family(
        self, metric: MetricSpec, value: float | Mapping[tuple[str, ...], float]
    ) -> prometheus.Metric:
        if not metric.read:
            raise ValueError(f"{metric.name} is counted, not read")
        kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = kind(metric.name, metric.sentence, labels=[label.name for label in metric.labels])
        if not isinstance(value, Mapping):
            value = {(): value}
        for values, number in (dict.fromkeys(self._every(metric), 0.0) | dict(value)).items():
            if len(values) != len(metric.labels):
                raise ValueError(f"{metric.name} has {len(metric.labels)} labels")
            family.add_metric(values, number)
        return family
