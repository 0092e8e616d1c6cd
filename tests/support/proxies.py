"""A real nginx and a real Caddy, each with its file from `deploy/`, on loopback before something of ours.

Ports, certificates, the log's folder and the address behind are put in; all else is as it is in the file.
"""

import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import httpx
import pytest

from tests.support.processes import ROOT, ending, free_port
from tests.support.raw_server import TLS

DEPLOY = ROOT / "deploy"
PUBLIC = "darkroom.example.com"
INTERNAL = "darkroom.internal.example.com"
BEHIND = "127.0.0.1:8321"
READY_WITHIN_S = 15.0
PATH = f"{os.environ['PATH']}:/usr/sbin"
"""Debian has nginx where only root looks."""


@dataclass(frozen=True)
class Front:
    port: int
    http: httpx.Client
    folder: Path

    def request(self, method: str, host: str, path: str, **more: object) -> httpx.Request:
        headers = httpx.Headers(more.pop("headers", None))  # type: ignore[arg-type]
        headers["host"] = host
        return self.http.build_request(
            method,
            f"https://127.0.0.1:{self.port}{path}",
            headers=headers,
            extensions={"sni_hostname": host},
            **more,  # type: ignore[arg-type]
        )

    def ask(self, method: str, host: str, path: str, **more: object) -> httpx.Response:
        return self.http.send(self.request(method, host, path, **more))

    def logs(self) -> str:
        """Everything that the proxy has written so far: its logs, and what it printed."""
        written = (path for path in self.folder.rglob("*") if path.suffix == ".log")
        return "\n".join(path.read_text(errors="replace") for path in written)


@dataclass(frozen=True)
class Program:
    """A proxy that can be run: what checks its file, and what runs it."""

    render: Callable[[Path, int, int], Path]
    check: tuple[str, ...]
    run: tuple[str, ...]

    def words(self, words: tuple[str, ...], file: Path) -> list[str]:
        return [word.format(file=file, folder=file.parent) for word in words]


def _nginx(folder: Path, port: int, behind: int) -> Path:
    text = (DEPLOY / "nginx.conf").read_text()
    text = text.replace("listen 443", f"listen 127.0.0.1:{port}")
    text = text.replace(BEHIND, f"127.0.0.1:{behind}").replace("/var/log/nginx", str(folder))
    text = re.sub(r"/etc/ssl/darkroom/\w+\.pem", str(TLS / "server.pem"), text)
    return _nginx_main(folder, text)


def _nginx_main(folder: Path, text: str) -> Path:
    (folder / "darkroom.conf").write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    main = folder / "nginx.conf"
    main.write_text(
        f"{'user root;' if os.geteuid() == 0 else ''}\nworker_processes 1;\npid {folder}/pid;\ndaemon off;\n"
        f"error_log {folder}/error.log info;\nevents {{}}\n"
        f"http {{\n{temporary}    include {folder}/darkroom.conf;\n}}\n"
    )
    return main


def _caddy(folder: Path, port: int, behind: int) -> Path:
    text = (DEPLOY / "Caddyfile").read_text()
    text = re.sub(
        rf"^({re.escape(PUBLIC)}|{re.escape(INTERNAL)}) {{$",
        rf"\1:{port} {{\n\tbind 127.0.0.1\n\ttls {TLS}/server.pem {TLS}/server.pem",
        text.replace(BEHIND, f"127.0.0.1:{behind}"),
        flags=re.MULTILINE,
    )
    # Elsewhere it would listen on port 80 too, and let itself be changed over port 2019.
    text = re.sub(r"^{$", "{\n\tadmin off\n\tauto_https disable_redirects", text, count=1, flags=re.MULTILINE)
    file = folder / "Caddyfile"
    file.write_text(text)
    return file


NGINX = Program(
    _nginx,
    check=("nginx", "-t", "-p", "{folder}", "-e", "stderr", "-c", "{file}"),
    run=("nginx", "-p", "{folder}", "-e", "stderr", "-c", "{file}"),
)
CADDY = Program(
    _caddy,
    check=("caddy", "validate", "--adapter", "caddyfile", "--config", "{file}"),
    run=("caddy", "run", "--adapter", "caddyfile", "--config", "{file}"),
)
PROGRAMS = {"nginx": NGINX, "caddy": CADDY}


@contextmanager
def before(name: str, folder: Path, behind: int, *, strangers: str = "") -> Iterator[Front]:
    """Run a proxy before a port of ours until the end of the block; skips the test where there is none.

    A network among the `strangers` is taken out of those that may use the API.
    """
    port = free_port()
    file = PROGRAMS[name].render(folder, port, behind)
    if strangers:
        _take_out(strangers, folder)
    with _running(name, file, port), httpx.Client(verify=False, trust_env=False, timeout=30) as http:
        # The certificate is one for other hosts; who is asked is not what is looked at here.
        yield Front(port, http, folder)


@contextmanager
def below(
    name: str, folder: Path, port: int, behind: int, prefix: str, *, strips: bool, host: str = "$http_host"
) -> Iterator[None]:
    """Run a proxy that has a service of ours below a path, without TLS, until the end of the block.

    `strips`: whether it takes the path away from what it passes on. `host`: what nginx sends as `Host`.
    """
    if name == "nginx":
        passed = f"http://127.0.0.1:{behind}{'/' if strips else ''}"
        file = _nginx_main(
            folder,
            f"server {{ listen 127.0.0.1:{port}; access_log off;\n"
            f"location ^~ {prefix}/ {{ proxy_pass {passed}; proxy_http_version 1.1; proxy_buffering off;\n"
            f"proxy_set_header Connection ''; proxy_set_header Host {host}; }}\n"
            "location / { return 404; } }\n",
        )
    else:
        file = folder / "Caddyfile"
        file.write_text(
            "{\nadmin off\nauto_https off\n}\n"
            f"http://127.0.0.1:{port} {{\n{'handle_path' if strips else 'handle'} {prefix}/* {{\n"
            f"reverse_proxy 127.0.0.1:{behind}\n}}\nhandle {{\nrespond 404\n}}\n}}\n"
        )
    with _running(name, file, port):
        yield


@contextmanager
def _running(name: str, file: Path, port: int) -> Iterator[None]:
    if shutil.which(name, path=PATH) is None:
        pytest.skip(f"{name} is not installed, so deploy/ was not tried with it")
    program, folder = PROGRAMS[name], file.parent
    env = {"PATH": PATH, "HOME": str(folder), "XDG_DATA_HOME": str(folder / "caddy")}
    checked = subprocess.run(
        program.words(program.check, file), env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stderr
    with (folder / "printed.log").open("wb") as out:
        child = subprocess.Popen(program.words(program.run, file), env=env, stdout=out, stderr=out)
    with ending(child):
        await_listening(child, port, folder / "printed.log")
        yield


def _take_out(network: str, folder: Path) -> None:
    (file,) = (path for path in folder.iterdir() if path.is_file() and network in path.read_text())
    file.write_text(file.read_text().replace(network, "192.0.2.0/24"))


def await_listening(child: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a program listens; raises AssertionError, with its log, if it ends or takes too long."""
    deadline = monotonic() + READY_WITHIN_S
    while True:
        assert child.poll() is None, log.read_text()
        assert monotonic() < deadline, log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        # Nothing to wait on: the only sign of life that it gives is to listen.
        threading.Event().wait(0.02)
