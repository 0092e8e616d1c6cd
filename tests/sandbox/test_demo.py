import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from receiver.demo.demo import PORT, PROMPTS, listener_for
from receiver.gateways.registry import Gateways
from receiver.http.server import listen
from tests.support.processes import until
from tests.support.running import command, environment
from tests.support.terminals import in_terminal

IMAGES = sum(prompt.get("num_images", 1) for prompt in PROMPTS)
BEGUN = "Darkroom listens on http://127.0.0.1:"
HOSTILE = {
    "DARKROOM_S3__BUCKET": "a-real-bucket",
    "DARKROOM_S3__ENDPOINT": "http://s3.invalid",
    "DARKROOM_GATEWAYS__APIFRAME__BASE_URL": "http://gateway.invalid",
    "DARKROOM_PORT": "not a port",
    "DARKROOM_API_TOKENS": "nonsense",
    "AWS_PROFILE": "no-such-profile",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
}
"""What a user may have set; the demo must not see it."""


@contextmanager
def demo(folder: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Start a demo; its servers are up."""
    process = subprocess.Popen(
        [sys.executable, "-m", "receiver", "demo", "--exit", *arguments],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process:
        try:
            assert any(BEGUN in line for line in iter(process.stdout.readline, "")), "it did not begin"
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """A process and all that it started."""
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def left_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    return psutil.wait_procs(processes, timeout=10)[1]


def test_the_demo_archives_verifies_and_ends(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DARKROOM_S3__ENDPOINT=http://dotenv.invalid\n")
    with demo(tmp_path, **HOSTILE) as process:
        processes = family(process)
        assert len(processes) > 1
        listening = [
            one.laddr.ip
            for member in processes
            for one in member.net_connections()
            if one.status == psutil.CONN_LISTEN
        ]
        assert set(listening) == {"127.0.0.1"}
        second = command("demo", "--exit", cwd=tmp_path)
        assert (second.returncode, "Another demo is running" in second.stderr) == (1, True)
        shown = process.communicate(timeout=120)[0]
    assert process.returncode == 0, shown
    assert not left_running(processes)
    for prompt in PROMPTS:
        assert prompt["prompt"] in shown
    for part in (f"Verified {IMAGES} images", "accounted for: 10 jobs", "2816x1536", "2026", "images/20"):
        assert part in shown
    kept = tmp_path / "darkroom-demo"
    assert len(list((kept / "images").iterdir())) == IMAGES
    assert '"decided"' in (kept / "demo.log").read_text()
    assert "invalid" not in (kept / "demo.log").read_text()

    again = command("demo", "--exit", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Every accepted job is accounted for: 20 jobs" in again.stdout
    assert len(list((kept / "images").iterdir())) == 2 * IMAGES


def test_all_gateways_give_an_image_each(tmp_path: Path) -> None:
    with demo(tmp_path, "--gateways", "all") as process:
        shown = process.communicate(timeout=120)[0]
    assert process.returncode == 0, shown
    assert f"Verified {len(Gateways().every())} images" in shown


def test_a_demo_that_is_stopped_leaves_nothing_running(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        processes = family(process)
        process.terminate()
        shown = process.communicate(timeout=60)[0]
    assert process.returncode == 130, shown
    assert "Traceback" not in shown
    assert not left_running(processes)


def test_usual_port_is_taken_where_it_is_free() -> None:
    with listener_for(0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        with listener_for(None, usual=port) as other:
            assert other.getsockname()[1] != port
        with pytest.raises(OSError, match="in use"):
            listener_for(port)
    with listener_for(None, usual=port) as listener:
        assert listener.getsockname()[1] == port


def taken(stack: ExitStack) -> bool:
    """Whether we have the demo's usual port, until the stack is closed."""
    try:
        stack.enter_context(listen("127.0.0.1", PORT)).listen()
    except OSError:
        return False
    return True


def test_last_lines_are_commands_that_work(tmp_path: Path) -> None:
    with ExitStack() as stack:
        until(lambda: taken(stack), 60)  # Another test may have the port for a while.
        demo = stack.enter_context(in_terminal("demo", folder=tmp_path))
        gallery, _, *commands = demo.lines_from("Gallery: ", 5)
        assert f"Port {PORT} is in use" in demo.shown()
        assert "<title>" in httpx.get(gallery.removeprefix("Gallery: "), trust_env=False).text
        assert len(commands) == 3
        for line in commands:
            done = subprocess.run(shlex.split(line), cwd=tmp_path, env=environment(), check=False, timeout=60)
            assert done.returncode == 0, line
        assert demo.interrupt() == 0


def test_unusable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = command("demo", "--exit", "--dir", str(tmp_path / "file" / "below"))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "The demo could not run" in done.stderr
