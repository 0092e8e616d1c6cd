"""Run benchmarks: `python -m tests.benchmarks [NAME ...] [--json FILE] [--quick]`; without names, all."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

from tests.benchmarks import (
    archiving,
    callbacks,
    cores,
    footprint,
    growth,
    latency,
    moving,
    replicas,
    search,
    waiting,
)
from tests.benchmarks.figures import Figure, footer, machine, table, told
from tests.benchmarks.grounds import Grounds

BENCHMARKS: dict[str, Callable[[Grounds], list[Figure]]] = {
    "callbacks": callbacks.run,
    "cores": cores.run,
    "archive": archiving.run,
    "latency": latency.run,
    "search": search.run,
    "growth": growth.run,
    "replicas": replicas.run,
    "footprint": footprint.run,
    "waiting": waiting.run,
    "moving": moving.run,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write the figures to a file if one is named."""
    command = sys.argv[1:] if arguments is None else list(arguments)
    asked = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    asked.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    asked.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    asked.add_argument("--quick", action="store_true", help="sizes that only show that everything works")
    asked.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep large ledgers here, and use those there"
    )
    options = asked.parse_args(command)
    if unknown := set(options.names) - set(BENCHMARKS):
        asked.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    # So that the servers are stopped by whatever ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    about = machine()
    figures: list[Figure] = []
    with Grounds(quick=options.quick, keep=options.keep) as grounds:
        for name in options.names or BENCHMARKS:
            began = monotonic()
            figures += BENCHMARKS[name](grounds)
            print(f"{name}: {monotonic() - began:.0f} s", file=sys.stderr)
            if options.json:
                options.json.write_text(json.dumps(told(figures, about, command), indent=2) + "\n")
    print(table(figures))
    print(f"\n{footer(told(figures, about, command))}")


if __name__ == "__main__":
    main()
