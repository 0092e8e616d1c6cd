"""Download one image of a running Darkroom into a file: resumed, and verified before the file appears."""

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

from receiver.client.http import ApiError, Damaged, Http, Unreachable
from receiver.schemas.output import Output

PASSING = frozenset({429, 502, 503, 504})
"""Statuses after which the same request may succeed."""
BEYOND = 416
"""The status of a range that begins behind the end."""

OnBytes = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """The retries of a broken download: one after each of `delays_s`, which `sleep` waits for."""

    delays_s: Sequence[float]
    sleep: Callable[[float], None]


@dataclass(slots=True)
class _Draft:
    """The unfinished file, with the length and digest of what it holds."""

    file: IO[bytes]
    on_bytes: OnBytes
    length: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def take(self, piece: bytes) -> None:
        self.digest.update(piece)
        self.length += len(piece)

    def clear(self) -> None:
        self.on_bytes(-self.length)
        self.file.seek(0)
        self.file.truncate()
        self.length, self.digest = 0, hashlib.sha256()


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def part_of(path: Path, sha256: str) -> Path:
    """Return where a file is until it is complete; the digest in its name lets only the same image resume."""
    return path.with_name(f".{path.name}.{sha256[:12]}.part")


def fetch(
    http: Http, output: Output, path: Path, *, on_bytes: OnBytes, patience: Patience, over: bool
) -> None:
    """Write an image to `path`, which appears complete or not at all; see `Darkroom.download`.

    `over`: a file at `path` is replaced; without it, FileExistsError is raised.
    """
    with _draft_for(path, output, on_bytes) as (draft, place):
        begun = draft.length > 0
        _fill(http, output, draft, patience)
        if begun and draft.digest.hexdigest() != output.sha256:
            # What an earlier try left there was damaged.
            draft.clear()
            _fill(http, output, draft, patience)
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
def _draft_for(path: Path, output: Output, on_bytes: OnBytes) -> Iterator[tuple[_Draft, Path]]:
    """Open the unfinished file, or another while a process has it locked; yield it with its path."""
    place = part_of(path, output.sha256)
    file = _open(place)
    if not _locked(file):
        file.close()
        place = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        file = _open(place)
    with file:
        draft = _Draft(file, on_bytes)
        while piece := file.read(1 << 20):
            draft.take(piece)
        on_bytes(draft.length)
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


def _fill(http: Http, output: Output, draft: _Draft, patience: Patience) -> None:
    """Download what is missing, with retries."""
    for delay in (*patience.delays_s, None):
        if draft.length >= output.bytes:
            return
        try:
            _go_on(http, output, draft)
        except (ApiError, Unreachable) as error:
            status = error.status if isinstance(error, ApiError) else None
            if delay is None or status not in {None, BEYOND, *PASSING}:
                raise
            if status == BEYOND:
                draft.clear()
            patience.sleep(delay)
        else:
            return


def _go_on(http: Http, output: Output, draft: _Draft) -> None:
    """Request what is missing, once."""
    headers = {"accept-encoding": "identity"}
    if draft.length:
        headers |= {"range": f"bytes={draft.length}-", "if-range": f'"{output.sha256}"'}
    with http.open(f"/v1/outputs/{quote(output.id, safe='')}/image?stream=1", headers) as response:
        if response.status_code == 206:  # Partial Content
            if not response.headers.get("content-range", "").startswith(f"bytes {draft.length}-"):
                raise http.stranger(" (it answered another range than was asked for)")
        elif draft.length:
            draft.clear()
        for piece in response.iter_raw():
            if draft.length + len(piece) > output.bytes:
                draft.clear()
                raise Damaged(f"{output.id}: more came than the {output.bytes} bytes that were archived.")
            draft.file.write(piece)
            draft.take(piece)
            draft.on_bytes(len(piece))
        draft.file.flush()
