"""Count in several processes together, in the multiprocess mode of prometheus_client.

Each process counts into files of its own in one folder, and `Metrics` shows the sum of them all
(https://prometheus.github.io/client_python/multiprocess/). A process that is started again goes on from the
files of its name, so that counters never fall and files never pile up.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

log = structlog.get_logger("darkroom.metrics")

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names the folder."""
RESERVED_BYTES = 1024 * 1024
"""Room for each kind of metric of a process; 60 busy routes were seen to need half of it."""


@contextmanager
def shared_counts() -> Iterator[None]:
    """Have this process and its children count together; every `Metrics` made meanwhile shows them all.

    Without room for the files each counts for itself, and work goes on.
    """
    try:
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="darkroom-metrics-")
        _count_into(os.environ[FOLDER], "serve")
    except OSError as error:
        log.error("what the workers do will not be in the metrics", why=error.strerror)
        remove_counts()
    try:
        yield
    finally:
        remove_counts()
        values.ValueClass = values.MutexValue


def count_as(process: str) -> None:
    """Count into the shared files under this name, if there are any."""
    try:
        if FOLDER in os.environ:
            _count_into(os.environ[FOLDER], process)
    except OSError as error:
        log.error("what this worker does will not be in the metrics", why=error.strerror)
        values.ValueClass = values.MutexValue


def remove_counts() -> None:
    """Remove the shared files."""
    if (folder := os.environ.pop(FOLDER, None)) is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _count_into(folder: str, process: str) -> None:
    mark_process_dead(process, folder)  # type: ignore[no-untyped-call]  # gauges of an earlier one
    for kind in ("counter", "histogram", "gauge_livesum"):
        with Path(folder, f"{kind}_{process}.db").open("ab") as file:
            # The files are mapped into memory: to find the disk full later would kill the process.
            os.posix_fallocate(file.fileno(), 0, RESERVED_BYTES)
    values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]
