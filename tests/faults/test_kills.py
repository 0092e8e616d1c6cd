from __future__ import annotations
from pathlib import Path
import time
from receiver.embedded import EmbeddedS3
from tests.faults.forks import Forks
from tests.faults.points import Kill
from tests.faults.world import world


def test_try(s3_server: EmbeddedS3, forks: Forks, tmp_path: Path) -> None:
    with world(s3_server, forks, tmp_path) as w:
        for n in range(5):
            t = time.monotonic()
            w.start()
            print("up", time.monotonic() - t)
            w.submit("apiframe")
            t = time.monotonic()
            w.settle()
            print("settled", time.monotonic() - t)
            t = time.monotonic()
            w.kill()
            print("killed", time.monotonic() - t)
        w.start(Kill("move:running", "commit"))
        w.submit("apiframe")
        w.await_death()
        t = time.monotonic()
        w.start()
        w.settle()
        print("settled", time.monotonic() - t)
        print(w.get("/v1/books"))
