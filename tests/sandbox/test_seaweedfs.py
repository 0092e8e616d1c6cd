import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.errors import Unready
from storage.archive.object_store import ObjectStore
from storage.errors import Unavailable
from tests.contracts.test_object_store import put
from tests.support.services import S3Access

PARENT = """
import sys, pathlib
from receiver.demo.seaweedfs import EmbeddedS3
server = EmbeddedS3(pathlib.Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


class Raced(EmbeddedS3):
    """A server whose port somebody else takes between its choice and its use, the first time."""

    rival: socket.socket | None = None

    def _write_files(self) -> None:
        super()._write_files()
        if self.rival is None:
            self.rival = socket.create_server(("127.0.0.1", self._ports["s3.port"]))


def open_store(server: EmbeddedS3, bucket: str = "pictures") -> ObjectStore:
    return S3Access(server.endpoint, server.access_key, server.secret_key).open(bucket=bucket)


def listening(pid: int) -> set[tuple[str, int]]:
    connections = psutil.Process(pid).net_connections(kind="inet")
    return {(each.laddr.ip, each.laddr.port) for each in connections if each.status == psutil.CONN_LISTEN}


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "s3")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        yield process
        process.kill()


def test_it_listens_on_loopback_only(s3_server: EmbeddedS3) -> None:
    assert s3_server.pid is not None
    addresses = listening(s3_server.pid)
    assert ("127.0.0.1", int(s3_server.endpoint.rpartition(":")[2])) in addresses
    assert {host for host, _ in addresses} == {"127.0.0.1"}


def test_nobody_gets_anything_without_a_key(s3_server: EmbeddedS3) -> None:
    store = open_store(s3_server)
    store.check(create=True)
    put(store, "picture", b"developed")
    assert s3_server.pid is not None
    with httpx.Client(trust_env=False, timeout=5) as client:
        assert client.get(f"{s3_server.endpoint}/pictures/picture").status_code == 403
        for _, port in listening(s3_server.pid):
            for path in ("/", "/buckets/pictures/picture"):
                try:
                    answer = client.get(f"http://127.0.0.1:{port}{path}")
                except httpx.RemoteProtocolError:  # a gRPC port
                    continue
                assert "developed" not in answer.text


def test_what_it_writes_is_private(s3_server: EmbeddedS3) -> None:
    assert stat.S_IMODE(s3_server.data_dir.stat().st_mode) == 0o700
    for name in ("s3.json", "security.toml"):
        assert stat.S_IMODE((s3_server.data_dir / name).stat().st_mode) == 0o600
    assert s3_server.pid is not None
    assert not any(s3_server.secret_key in word for word in psutil.Process(s3_server.pid).cmdline())


def test_it_starts_again_with_the_same_objects(tmp_path: Path) -> None:
    server = EmbeddedS3(tmp_path / "s3")
    bodies = [os.urandom(5_000_000), b"1", b"2"]
    for turn, body in enumerate(bodies):
        with server:
            store = open_store(server)
            store.check(create=True)
            put(store, f"pictures/{turn}", body)
            keys = [f"pictures/{earlier}" for earlier in range(turn + 1)]
            assert [found.key for found in store.list("")] == keys
            assert [store.read(key, max_bytes=5_000_000) for key in keys] == bodies[: turn + 1]
            process = psutil.Process(server.pid)
            if turn == 0:
                process.kill()
                process.wait()
                with pytest.raises(Unavailable, match="DARKROOM_S3__ENDPOINT"):
                    store.check()
        assert not process.is_running()
        assert server.pid is None
        server.stop()
    assert len(list((tmp_path / "s3" / "data").glob("m[0-9]*"))) == 1


def test_a_port_that_was_taken_meanwhile_is_replaced(tmp_path: Path) -> None:
    with Raced(tmp_path / "s3") as server:
        assert server.rival is not None
        with server.rival:
            open_store(server).check(create=True)
            assert server.rival.getsockname()[1] != int(server.endpoint.rpartition(":")[2])


def test_two_on_one_directory_are_refused(s3_server: EmbeddedS3) -> None:
    with pytest.raises(Unready, match="Another embedded S3 server is using"):
        EmbeddedS3(s3_server.data_dir).start()
    assert s3_server.pid is not None
    open_store(s3_server, "still-there").check(create=True)


def test_a_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "filerldb2").write_text("not a directory")
    server = EmbeddedS3(tmp_path)
    why = r"ended at once; the end of .*server\.log:\n(?s:.*)Not a valid folder"
    with pytest.raises(Unready, match=why) as caught:
        server.start()
    assert server.secret_key not in str(caught.value)
    assert server.pid is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_it_ends_when_its_parent_is_killed(tmp_path: Path, parent: subprocess.Popen[str]) -> None:
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    server.wait(timeout=30)
    with EmbeddedS3(tmp_path / "s3") as successor:
        assert successor.pid is not None


def test_a_ctrl_c_in_the_terminal_does_not_reach_it(s3_server: EmbeddedS3) -> None:
    assert s3_server.pid is not None
    assert os.getpgid(s3_server.pid) != os.getpgid(0)
    assert os.getsid(s3_server.pid) != os.getsid(0)
