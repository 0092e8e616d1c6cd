"""What containers would run, run outside of them, since no container engine runs where the tests do.

Commands and environments are those of the files in `deploy/`; hosts, ports and folders are put in.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from receiver.demo.seaweedfs import find_binary
from tests.deploy.deployed import DEPLOY, Document
from tests.support.processes import ending, free_port
from tests.support.running import ROOT, environment

FOLDERS = ("darkroom", "postgres", "seaweedfs", "archive")


def make_keys(folder: Path) -> Path:
    """Make the secrets as the container does; answers the folder with those of Darkroom."""
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
    script = [sys.executable, "-I", str(DEPLOY / "compose-keys.py"), str(folder)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder / "darkroom"


@contextmanager
def seaweedfs(folder: Path, service: Document) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """SeaweedFS as Compose starts it, on ports of its own; answers the process and where S3 is."""
    servers = ("s3", "master", "volume", "filer")
    ports = {f"{server}.{kind}": free_port() for server in servers for kind in ("port", "port.grpc")}
    words = [str(find_binary())]
    for word in service["entrypoint"][1:]:
        if not word.startswith("-s3.port="):
            words.append(
                word.replace("=/archive", f"={folder}/archive").replace("/keys", f"{folder}/seaweedfs")
            )
    words += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "seaweedfs.log").open("wb") as out:
        child = subprocess.Popen(
            words, cwd=folder / "seaweedfs", env={"HOME": f"{folder}/archive"}, stdout=out, stderr=out
        )
    try:
        yield child, f"http://127.0.0.1:{ports['s3.port']}"
    finally:
        child.kill()
        child.wait()
        for port in ports.values():
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()


def contained(data: Path) -> list[str]:
    """The words before a command that hold it as the image and the manifests do.

    Nobody's number, no capabilities, a root file system that is read-only; to be written to are /tmp, which
    is empty, and one folder. Skips the test where that cannot be done.
    """
    data.mkdir()
    words = ["bwrap", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    words += ["--tmpfs", "/tmp"]
    for path in (ROOT, sys.prefix, sys.base_prefix, *filter(os.path.isdir, sys.path)):
        words += ["--ro-bind", str(path), str(path)]
    words += ["--bind", str(data), str(data), "--chdir", "/"]
    words += ["--unshare-user", "--uid", "10001", "--gid", "10001", "--cap-drop", "ALL"]
    if shutil.which("bwrap") is None or subprocess.run([*words, "true"], check=False).returncode != 0:
        pytest.skip("bwrap is not installed or may do nothing here, so a read-only root was not tried")
    return words


@contextmanager
def darkroom(
    command: Sequence[str], given: Mapping[str, str], folder: Path, *, before: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """`darkroom ...` with this environment, in this folder, behind other words."""
    words = [*before, sys.executable, "-m", "receiver", *command[1:]]
    with (folder / f"{command[1]}.log").open("ab") as out:
        child = subprocess.Popen(words, cwd=folder, env=environment(**given), stdout=out, stderr=out)
    with ending(child):
        yield child
