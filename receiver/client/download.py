"""Bring one image from a running Darkroom into a file: resumable, and checked before the file appears."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from receiver.client.http import ApiError, ClientError, Damaged, Http, Unreachable
from receiver.schemas.output import Output

PASSING = frozenset({429, 502, 503, 504})
"""Statuses after which the same request may well be answered."""
BEYOND = 416
"""The status of a range that begins behind the end."""

OnBytes = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a broken download is tried again: once after each of `delays_s`, by way of `sleep`."""

    delays_s: Sequence[float]
    sleep: Callable[[float], None]


@dataclass(slots=True)
class _Draft:
    """The file as far as it has come, and the digest of that."""

    file: IO[bytes]
    length: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def take(self, piece: bytes) -> None:
        self.digest.update(piece)
        self.length += len(piece)

    def clear(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.length, self.digest = 0, hashlib.sha256()


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def part_of(path: Path, sha256: str) -> Path:
    """Where a file lies until it is whole. The digest is in the name: only the same image goes on with it."""
    return path.with_name(f".{path.name}.{sha256[:12]}.part")


def fetch(
    http: Http, output: Output, path: Path, *, on_bytes: OnBytes, patience: Patience, over: bool
) -> None:
    """Write an image to `path`, which appears whole or not at all.

    What came is kept beside it if the connection breaks, and the next try asks for the rest only. `over`:
    a file that is at `path` is replaced; without it, FileExistsError is raised. `on_bytes` is called with the
    length of each piece, first of what was there already, and a negative one where it starts over.
    Raises Damaged, with nothing kept, if the SHA-256 is not the archive's.
    """
    with _draft_for(path, output) as (draft, place):
        begun = draft.length > 0
        on_bytes(draft.length)
        _fill(http, output, draft, on_bytes, patience)
        if begun and draft.digest.hexdigest() != output.sha256:
            # What an earlier try left there was spoiled.
            _start_over(draft, on_bytes)
            _fill(http, output, draft, on_bytes, patience)
        if (came := draft.digest.hexdigest()) != output.sha256:
            place.unlink(missing_ok=True)
            raise Damaged(f"{output.id}: what came has SHA-256 {came}, but {output.sha256} was archived.")
        os.fsync(draft.file.fileno())
        appear(place, path, over=over)


def appear(draft: Path, path: Path, *, over: bool) -> None:
    """Give a finished file its name; raises FileExistsError if the name is taken, unless `over`."""
    if over:
        draft.replace(path)
        return
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links.
        if path.exists():
            raise FileExistsError(f"{path} is there already") from None
        draft.rename(path)
    else:
        draft.unlink()


@contextmanager
def _draft_for(path: Path, output: Output) -> Iterator[tuple[_Draft, Path]]:
    """The unfinished file with what it has so far; one of its own if another process is at work on it."""
    place = part_of(path, output.sha256)
    file = _open(place)
    if not _locked(file):
        file.close()
        place = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        file = _open(place)
    with file:
        draft = _Draft(file)
        while piece := file.read(1 << 20):
            draft.take(piece)
        if draft.length > output.bytes:
            draft.clear()
        try:
            yield draft, place
        finally:
            shared = place == part_of(path, output.sha256)
            if place.exists() and (draft.length == 0 or not shared):
                place.unlink()


def _open(place: Path) -> IO[bytes]:
    # Not through a link: a folder that others may write to could hold one with this name.
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    return os.fdopen(descriptor, "r+b")


def _locked(file: IO[bytes]) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _fill(http: Http, output: Output, draft: _Draft, on_bytes: OnBytes, patience: Patience) -> None:
    """Bring what is missing, and try again where the connection breaks."""
    for delay in (*patience.delays_s, None):
        if draft.length >= output.bytes:
            return
        try:
            _go_on(http, output, draft, on_bytes)
        except (ApiError, Unreachable) as error:
            if delay is None or not _may_pass(error):
                raise
            if isinstance(error, ApiError) and error.status == BEYOND:
                _start_over(draft, on_bytes)
            patience.sleep(delay)
        else:
            return


def _go_on(http: Http, output: Output, draft: _Draft, on_bytes: OnBytes) -> None:
    """Ask for what is missing, once."""
    headers = {"accept-encoding": "identity"}
    if draft.length:
        headers |= {"range": f"bytes={draft.length}-", "if-range": f'"{output.sha256}"'}
    with http.open(f"/v1/outputs/{quote(output.id, safe='')}/image?stream=1", headers) as response:
        if response.status_code == 206:  # Partial Content
            if not response.headers.get("content-range", "").startswith(f"bytes {draft.length}-"):
                raise http.stranger(" (it answered another range than was asked for)")
        elif draft.length:
            _start_over(draft, on_bytes)
        for piece in response.iter_raw():
            if draft.length + len(piece) > output.bytes:
                draft.clear()
                raise Damaged(f"{output.id}: more came than the {output.bytes} bytes that were archived.")
            draft.file.write(piece)
            draft.take(piece)
            on_bytes(len(piece))
        draft.file.flush()


def _start_over(draft: _Draft, on_bytes: OnBytes) -> None:
    on_bytes(-draft.length)
    draft.clear()


def _may_pass(error: ClientError) -> bool:
    return not isinstance(error, ApiError) or error.status in PASSING | {BEYOND}
