"""`darkroom submit --file`: all rows are judged first, and none is submitted twice, however it is cut off."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from receiver.cli.batch import ROWS
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.faults.harm import Call, pass_on
from tests.faults.proxy import Proxy
from tests.faults.wire import Gone
from tests.support.running import Running, begun, data, start

IMAGEN = ("--gateway", "apiframe", "--model", "imagen-4-fast")
RAMEN = ("--gateway", "api-in-one", "--model", "imagen4")
MANY = 200
SUBMITS = "/v1/jobs/batch$"


def prompts(folder: Path, name: str, count: int = MANY) -> Path:
    """A file of prompts, the half of them the same one."""
    file = folder / f"{name}.csv"
    lines = [f"{name}, {'the same' if number % 2 else number},{number}" for number in range(count)]
    file.write_text("\n".join(["prompt,tags.note,tags.row", *lines]))
    return file


def made(running: Running, name: str) -> list[str]:
    """The rows of which there is a job, by their tag."""
    return sorted(job.request.tags["row"] for job in running.darkroom.jobs(q=name))


@pytest.fixture(scope="module")
def idle(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A service that accepts jobs, and works on none."""
    with start(tmp_path_factory.mktemp("idle"), s3_server, sandbox, work=False) as running:
        yield running


class Cut:
    """Acts before or after a batch that submits reaches the service, and tells when."""

    def __init__(self, nth: int, *, after: bool) -> None:
        self.struck = threading.Event()
        self._goes_on = threading.Event()
        self._left, self._after = nth, after

    def __call__(self, call: Call) -> None:
        self._left -= not json.loads(call.request.body)["dry_run"]
        if self._left or self.struck.is_set():
            pass_on(call)
            return
        if self._after:
            call.forward()
        self.struck.set()
        self._goes_on.wait(20)
        raise Gone

    def go_on(self) -> None:
        self._goes_on.set()


def ends_by(sent: signal.Signals) -> Callable[[Proxy, Path, str, Cut], str]:
    def end(proxy: Proxy, folder: Path, name: str, cut: Cut) -> str:
        command = ("submit", "--file", f"{name}.csv", *IMAGEN)
        child = begun(*command, cwd=folder, DARKROOM_URL=proxy.url)
        assert cut.struck.wait(30)
        child.send_signal(sent)
        _, told = child.communicate(timeout=30)
        cut.go_on()
        assert child.returncode == (130 if sent is signal.SIGINT else -sent)
        return told

    return end


def service_goes_away(proxy: Proxy, folder: Path, name: str, cut: Cut) -> str:
    cut.go_on()
    child = begun("submit", "--file", f"{name}.csv", *IMAGEN, cwd=folder, DARKROOM_URL=proxy.url)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 3
    return told


CUTS = {"ctrl-c": ends_by(signal.SIGINT), "kill": ends_by(signal.SIGKILL), "away": service_goes_away}


@pytest.mark.parametrize(
    "after", [pytest.param(False, marks=pytest.mark.exhaustive, id="unheard"), pytest.param(True, id="heard")]
)
@pytest.mark.parametrize("how", CUTS)
def test_a_file_that_was_cut_off_goes_on(idle: Running, tmp_path: Path, how: str, after: bool) -> None:
    name = f"cut{how.replace('-', '')}{after}"
    file = prompts(tmp_path, name)
    cut = Cut(3, after=after)
    with Proxy(idle.url) as proxy, proxy.armed(cut, method="POST", path=SUBMITS):
        told = CUTS[how](proxy, tmp_path, name, cut)
    if how != "kill":
        assert f"{2 * ROWS} of {MANY} jobs are submitted, and perhaps {ROWS} more." in told
        assert "run the same command again" in told
    there = len(made(idle, name))
    assert there == (3 if after else 2) * ROWS
    again = idle.darkroom_command("submit", "--file", str(file), *IMAGEN, "--json")
    assert again.returncode == 0, again.stderr
    assert f"{there} of {MANY} were submitted before" in again.stderr
    assert made(idle, name) == sorted(str(number) for number in range(MANY))
    assert [job["request"]["tags"]["row"] for job in data(again)] == [str(n) for n in range(MANY)]
    third = idle.darkroom_command("submit", "--file", str(file), *IMAGEN, "--json")
    assert (third.returncode, "All of it was submitted before" in third.stderr) == (0, True)
    assert [job["id"] for job in data(third)] == [job["id"] for job in data(again)]
    assert len(made(idle, name)) == MANY


def test_a_service_that_is_away_has_nothing(running: Running, proxy: Proxy, tmp_path: Path) -> None:
    proxy.down()
    file = prompts(tmp_path, "nothing", 3)
    for words in (("--file", str(file)), ("one prompt",)):
        child = begun("submit", *words, *IMAGEN, DARKROOM_URL=proxy.url)
        _, told = child.communicate(timeout=30)
        assert (child.returncode, "could be reached" in told) == (3, True)
        assert "perhaps" not in told
        assert "may or may not" not in told


def test_a_prompt_without_a_response_may_be_submitted(running: Running, proxy: Proxy) -> None:
    def swallow(call: Call) -> None:
        call.forward()
        raise Gone

    with proxy.armed(swallow, method="POST", path="/v1/jobs$"):
        child = begun("submit", "swallowed prompt", *IMAGEN, DARKROOM_URL=proxy.url)
        _, told = child.communicate(timeout=30)
    assert (child.returncode, "may or may not have been submitted" in told) == (3, True)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("fine,x,", "line 3: num_images: must be a whole number"),
        ("fine,65,", "line 3: num_images: must be 64 at most"),
        ('" ",,7', "line 3: prompt"),
        ("fine,,a seed", "line 3: seed"),
        ("fine,,7\nfine,,a seed", "line 4: seed"),
    ],
)
def test_every_row_is_judged_before_one_is_sent(
    running: Running, tmp_path: Path, row: str, told: str
) -> None:
    file = tmp_path / "judged.csv"
    file.write_text(f"prompt,num_images,seed\nfine,1,7\n{row}\n" + "fine,,7\n" * ROWS + "fine,,\n")
    before = running.darkroom.status().accepted
    done = running.darkroom_command("submit", "--file", str(file), *RAMEN)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert running.darkroom.status().accepted == before


def test_another_gateways_rules_hold_for_its_rows(running: Running, tmp_path: Path) -> None:
    file = tmp_path / "rules.jsonl"
    others = [{}, {"gateway": "apiframe"}, {"gateway": "nobody"}, {"idempotency_key": "a b"}]
    rows = [{"prompt": "a kite", "seed": 7} | other for other in others]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    done = running.darkroom_command("submit", "--file", str(file), *RAMEN)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("line ")]
    assert [line.split(":")[0] for line in lines] == ["line 2", "line 3", "line 4"], done.stderr


@pytest.mark.parametrize(
    "row",
    ['{"prompt": "\\ud800"}', '{"prompt": "p", "params": {"a": 1e999}}',
     '{"prompt": "p", "params": ' + '{"a":' * 300 + "1" + "}" * 301,
     '{"prompt": "' + "x" * 9_000_000 + '"}'],
    ids=["half a character", "endless number", "deep", "long"],
)  # fmt: skip
def test_a_row_that_cannot_be_sent_is_named(running: Running, tmp_path: Path, row: str) -> None:
    file = tmp_path / "unsendable.jsonl"
    file.write_text("\n".join(['{"prompt": "fine"}', row, '{"prompt": "fine too"}']))
    done = running.darkroom_command("submit", "--file", str(file), *IMAGEN)
    assert (done.returncode, "line 2: " in done.stderr) == (2, True), done.stderr[-500:]
    assert "line 1: " not in done.stderr
    assert "line 3: " not in done.stderr


def test_a_changed_file_or_option_is_a_new_batch(running: Running, tmp_path: Path) -> None:
    file = prompts(tmp_path, "changing", 2)
    wanted = ("submit", "--file", str(file), *IMAGEN, "--json")
    first = [job["id"] for job in data(running.darkroom_command(*wanted))]
    assert len(set(first)) == 2
    assert [job["id"] for job in data(running.darkroom_command(*wanted))] == first
    for more in (("--tag", "a=b"), ("--again", "two")):
        other = [job["id"] for job in data(running.darkroom_command(*wanted, *more))]
        assert not set(other) & set(first)
        assert [job["id"] for job in data(running.darkroom_command(*wanted, *more))] == other
    file.write_text(file.read_text() + "\n")
    assert not set(first) & {job["id"] for job in data(running.darkroom_command(*wanted))}


def test_standard_input_is_a_file_too(running: Running) -> None:
    wanted = ("submit", "-f", "-", *IMAGEN, "--json")
    same = "prompt\nby standard input\nby standard input\n"
    first = data(running.darkroom_command(*wanted, stdin=same))
    assert len({job["id"] for job in first}) == 2
    again = data(running.darkroom_command(*wanted, stdin=same))
    assert [job["id"] for job in again] == [job["id"] for job in first]


def test_a_key_of_its_own_wins_over_the_files(running: Running, tmp_path: Path) -> None:
    file = tmp_path / "keys.csv"
    file.write_text("prompt,idempotency_key\nkeyed,own-1\nunkeyed,\n")
    wanted = ("submit", "--file", str(file), *IMAGEN, "--json")
    first = data(running.darkroom_command(*wanted))
    file.write_text("prompt,idempotency_key\nkeyed,own-1\nunkeyed and changed,\n")
    second = data(running.darkroom_command(*wanted))
    assert [a["id"] == b["id"] for a, b in zip(first, second, strict=True)] == [True, False]
    file.write_text(
        "prompt,idempotency_key\nkeyed,own-1\nother,own-2\nanother,own-2\nkeyed and changed,own-1\n"
    )
    done = running.darkroom_command(*wanted)
    assert (done.returncode, "line 4: idempotency_key: line 3" in done.stderr) == (2, True), done.stderr


def test_waiting_counts_jobs_as_they_finish(running: Running, tmp_path: Path) -> None:
    file = tmp_path / "waiting.csv"
    lines = [f"waiting {n},{'failed' if n == 3 else 'none'}" for n in range(25)]
    file.write_text("\n".join(["prompt,params.sandbox.fault", *lines]).replace(",none", ","))
    done = running.darkroom_command("submit", "--file", str(file), *IMAGEN, "--wait", "--json")
    assert done.returncode == 1
    assert [job["status"] for job in data(done)] == ["failed" if n == 3 else "archived" for n in range(25)]
    late = running.darkroom_command("submit", "--file", str(file), *IMAGEN, "--wait", "--timeout", "0")
    assert "Time is up" not in late.stderr
