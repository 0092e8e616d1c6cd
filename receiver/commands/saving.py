"""Save outputs to files with a bar that shows how far it is; used by `download` and `submit --download`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from receiver.commands.screen import err

if TYPE_CHECKING:
    from receiver.client import Darkroom
    from receiver.replies import Output


@dataclass(frozen=True, slots=True)
class Saved:
    """An output's file; `fetched` is false if it was there already."""

    output: Output
    path: Path
    fetched: bool

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        output = self.output
        return {
            "id": output.id,
            "file": str(self.path),
            "sha256": output.sha256,
            "bytes": output.bytes,
            "fetched": self.fetched,
        }


def save(darkroom: Darkroom, outputs: Sequence[Output], folder: Path) -> list[Saved]:
    """Save every output; what is there already with the right digest is not fetched again."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = err()
    columns = (TextColumn("Downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    saved: list[Saved] = []
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=sum(output.bytes for output in outputs))
        for output in outputs:
            fetched = 0

            def on_bytes(length: int) -> None:
                nonlocal fetched
                fetched += length
                progress.advance(task, length)

            path = darkroom.download(output, folder, on_bytes=on_bytes)
            progress.advance(task, output.bytes - fetched)
            saved.append(Saved(output, path, fetched=bool(fetched)))
    return saved
