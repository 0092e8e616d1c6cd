"""Write the generated tables between their marks: `python -m tests.docs.generate [--check]`.

A table stands between `<!-- name -->` and `<!-- -->` in the page that `PAGES` names for it. To move a table,
name it under another page, and put the two marks there. With `--check` nothing is written, and the exit code
is 1 if a page is stale.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from receiver import errors
from receiver.cli.config import settings_table
from receiver.errors import DarkroomError
from receiver.gateways import declared
from receiver.gateways.registry import ADAPTERS
from receiver.gateways.table import Signing, Table
from receiver.query.language import GUIDE
from receiver.signatures import SCHEMES
from receiver.telemetry.metric_list import METRICS
from tests.support.processes import ROOT

PAGES: Mapping[str, Sequence[str]] = {
    "deploy/SETTINGS.md": ("settings",),
    "deploy/METRICS.md": ("metrics",),
    "deploy/ERRORS.md": ("answers", "job errors", "notification errors"),
    "receiver/api/docs/topics/search.md": ("language",),
    "deploy/GATEWAYS.md": ("gateways", "declared gateways"),
}
"""The tables of each page."""

OF_JOBS: Mapping[str, tuple[str, str]] = {
    "no_answer": ("gateway", "no result came in 24 hours"),
    "submission_unconfirmed": ("gateway", "it never said whether it took the job; not sent again"),
    "generation_failed": ("gateway", "it says that the job failed; the message has its words"),
    "image_missing": ("archive", "its image is no longer in the bucket, nor at the gateway"),
    "ledger_incomplete": ("operator", "the ledger lacks jobs, so nothing is sent before it is restored"),
    "record_refused": ("archive", "the bucket refuses the job's record, and stores others; the job waits"),
    "gateway_job_taken": ("gateway", "it answered with the id of another job of ours"),
    "storage_unavailable": ("operator", "the bucket cannot be used now; the job waits, as long as it takes"),
    "unknown_gateway": ("operator", "its gateway has no API key here any more; the job waits for one"),
}
"""Codes of failed and waiting jobs that are no error classes: who can fix it, and what it means."""


def table(head: str, rows: Iterator[tuple[str, ...]]) -> str:
    names = [name.strip() for name in head.split("|")]
    lines = [names, ["---"] * len(names), *([escaped(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escaped(cell: str) -> str:
    # Between backticks a `<` is shown as it is; elsewhere it would begin a tag.
    pieces = cell.replace("|", r"\|").split("`")
    return "`".join(piece if n % 2 else piece.replace("<", "&lt;") for n, piece in enumerate(pieces))


def code(text: str | None) -> str:
    return f"`{text}`" if text else ""


def settings_rows() -> Iterator[tuple[str, ...]]:
    for row in settings_table():
        in_file = " or `_FILE`" if row.secret else ""
        yield code(row.variable) + in_file, code(row.default), row.help


def meanings() -> dict[str, str]:
    """Each code with its words in the tree that `receiver/errors.py` draws at its top."""
    return dict(re.findall(r"── \w+ +([a-z_]+) +(\S.*)", errors.__doc__ or ""))


def leaves(root: type[DarkroomError]) -> Iterator[type[DarkroomError]]:
    if "code" in vars(root):
        yield root
    for kind in root.__subclasses__():
        yield from leaves(kind)


def answer_rows() -> Iterator[tuple[str, ...]]:
    for root in (errors.RequestError, errors.CallbackError, errors.Unready):
        for kind in leaves(root):
            yield code(kind.code), str(kind.status), meanings()[kind.code]
    yield code("method_not_allowed"), "405", "the route does not take this method"
    yield code("bad_request"), "4xx", "something else that the HTTP layer refused"
    yield code(DarkroomError.code), "500", "a fault of ours; the log has it under the `X-Request-Id`"


def job_error_rows() -> Iterator[tuple[str, ...]]:
    for name, (at_fault, meaning) in OF_JOBS.items():
        yield code(name), at_fault, meaning
    for root in (errors.GatewayError, errors.ImageError):
        for kind in leaves(root):
            yield code(kind.code), kind.at_fault, meanings()[kind.code]


def notification_error_rows() -> Iterator[tuple[str, ...]]:
    for kind in leaves(errors.NotificationError):
        yield code(kind.code), meanings()[kind.code]


def metric_rows() -> Iterator[tuple[str, ...]]:
    for metric in METRICS:
        yield (
            code(metric.name),
            metric.kind,
            ", ".join(label.name for label in metric.labels),
            metric.sentence,
        )


def language_rows() -> Iterator[tuple[str, ...]]:
    for example, meaning in GUIDE:
        yield code(example), meaning


def gateway_tables() -> tuple[Table, ...]:
    return tuple(adapter.table for adapter in ADAPTERS)


def declared_tables() -> tuple[Table, ...]:
    return tuple(declared.read(path).table() for path in sorted(declared.SHIPPED.glob("*.toml")))


def gateway_rows(tables: Sequence[Table]) -> Iterator[tuple[str, ...]]:
    for one in tables:
        seeds = {
            name
            for read in (*one.read, *(one.read_poll or ()))
            for name in ("seed", "echoed")
            if getattr(read, name)
        }
        yield (
            f"[{one.title}]({one.docs})",
            code(one.name),
            _proof(one.signing),
            _life(one.life_s),
            "its own" if "seed" in seeds else "ours sent back" if seeds else "none",
            "sending it again, with its key" if one.idempotency else "the callback",
            "yes" if one.cancel else "",
            ", ".join(f"{what} {how}" for what, how in sorted(one.sure.items()) if how != "confirmed"),
        )


def _proof(signing: Signing | None) -> str:
    if signing is None:
        return "none: each is confirmed"
    if signing.by == "keys":
        return "Ed25519, published keys"
    scheme = SCHEMES[signing.scheme]
    covered = scheme.content.endswith("body")
    return f"{code(scheme.name)}{'' if covered else ', of the sender alone: each is confirmed'}"


def _life(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min"


GATEWAYS = (
    "gateway | name | signature | links live | seeds | a lost answer is healed by | cancel | not confirmed"
)

TABLES: Mapping[str, Callable[[], str]] = {
    "gateways": lambda: table(GATEWAYS, gateway_rows(gateway_tables())),
    "declared gateways": lambda: table(GATEWAYS, gateway_rows(declared_tables())),
    "settings": lambda: table("variable | default | what it is for", settings_rows()),
    "language": lambda: table("such as | finds", language_rows()),
    "answers": lambda: table("code | status | meaning", answer_rows()),
    "job errors": lambda: table("code | at fault | meaning", job_error_rows()),
    "notification errors": lambda: table("code | meaning", notification_error_rows()),
    "metrics": lambda: table("metric | kind | labels | what it says", metric_rows()),
}


def written(page: str) -> str:
    """Return a page with its tables as they are to be; raises ValueError if one has no marks there."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in PAGES[page]:
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- -->")
        if not mark or not end:
            raise ValueError(f"{page} has no part between <!-- {name} --> and <!-- -->")
        text = f"{before}{mark}\n{TABLES[name]()}\n{end}{after}"
    return text


def stale() -> list[str]:
    """Return the pages that are not as they would be written."""
    return [page for page in PAGES if (ROOT / page).read_text(encoding="utf-8") != written(page)]


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m tests.docs.generate")
    asked.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is stale")
    check = asked.parse_args().check
    for page in stale():
        print(f"{page} is stale" if check else f"{page} written")
        if not check:
            (ROOT / page).write_text(written(page), encoding="utf-8")
    if check and stale():
        sys.exit("run: python -m tests.docs.generate")


if __name__ == "__main__":
    main()
