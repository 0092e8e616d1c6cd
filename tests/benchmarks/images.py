"""Images of a megabyte on a web server of our own: nginx if it is installed, else Python's own."""

import os
import random
import shutil
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Self

from PIL import Image

from tests.support.processes import await_ready, free_port

FILES = 16
"""Different ones; a link may have a query, which changes nothing."""
SIDE = 584
"""Pixels; noise has three bytes for each of them."""

CONFIG = """
daemon off;
worker_processes 1;
error_log stderr;
pid {folder}/pid;
events {{ worker_connections 512; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  types {{ image/png png; }}
  server {{ listen 127.0.0.1:{port}; root {folder}/files; }}
}}
"""


class Images:
    """The server, as long as a `with` block lasts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        files = self._folder / "files"
        files.mkdir(parents=True)
        for n in range(FILES):
            (files / f"{n}.png").write_bytes(picture(n))
        self._child = subprocess.Popen(self._command(files), cwd=files)
        await_ready(self._child, self.url, path="/0.png")
        return self

    def __exit__(self, *_error: object) -> None:
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)
            self._child.wait(30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def links(self, number: int) -> list[str]:
        """So many links, no two of them the same."""
        return [f"{self.url}/{n % FILES}.png?n={n}" for n in range(number)]

    def _command(self, files: Path) -> list[str]:
        nginx = shutil.which("nginx")
        if nginx is None:
            return [sys.executable, "-m", "http.server", str(self._port), "--bind", "127.0.0.1"]
        config = self._folder / "nginx.conf"
        # Its workers are another user's otherwise, who may not look into our folder.
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(user + CONFIG.format(folder=self._folder, port=self._port))
        return [nginx, "-c", str(config), "-e", "stderr"]


def picture(seed: int) -> bytes:
    """A PNG of a megabyte: noise, which cannot be made smaller."""
    noise = random.Random(seed).randbytes(SIDE * SIDE * 3)
    file = BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), noise).save(file, "PNG", compress_level=1)
    return file.getvalue()
