"""Downloads that break off, and go on: what was asked for is looked at on the wire."""

import hashlib
import threading
from pathlib import Path

import pytest

from receiver.client import ApiError, Damaged, Darkroom, Unreachable
from receiver.client.download import part_of
from receiver.schemas.output import Output
from tests.cli.test_client import make
from tests.faults import harm
from tests.faults.proxy import Proxy
from tests.faults.wire import Message, answer_of
from tests.support.running import Running

IMAGE = r"/image"


@pytest.fixture(scope="module")
def output(running: Running) -> Output:
    return running.darkroom.output(make(running, "a kite that is broken off").outputs[0].id)


def client(proxy: Proxy, tries: int = 3) -> Darkroom:
    return Darkroom(proxy.url, retry_delays_s=[0] * tries, sleep=lambda _seconds: None)


def whole(path: Path, output: Output) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == output.sha256


def asked(proxy: Proxy) -> list[str | None]:
    return [call.request.headers.get("range") for call in proxy.calls]


def test_a_broken_connection_is_gone_on_with(proxy: Proxy, output: Output, tmp_path: Path) -> None:
    seen: list[int] = []
    with client(proxy) as darkroom, proxy.armed(harm.cut(-100), path=IMAGE, times=1):
        path = darkroom.download(output, tmp_path, on_bytes=seen.append)
    assert whole(path, output)
    assert asked(proxy) == [None, f"bytes={output.bytes - 100}-"]
    rest = proxy.calls[1].answered
    assert rest is not None
    assert (rest.status, len(rest.body)) == (206, 100), "the rest, and nothing else"
    assert proxy.calls[1].request.headers["if-range"] == f'"{output.sha256}"'
    assert sum(seen) == output.bytes
    assert list(tmp_path.iterdir()) == [path]


def test_another_call_goes_on_where_one_was_given_up(proxy: Proxy, output: Output, tmp_path: Path) -> None:
    with client(proxy, tries=0) as darkroom:
        with proxy.armed(harm.cut(-100), path=IMAGE), pytest.raises(Unreachable):
            darkroom.download(output, tmp_path)
        (part,) = tmp_path.iterdir()
        assert (part.name[0], part.stat().st_size) == (".", output.bytes - 100)
        assert whole(darkroom.download(output, tmp_path), output)
    assert asked(proxy) == [None, f"bytes={output.bytes - 100}-"]
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_whole_already_is_only_checked(proxy: Proxy, output: Output, tmp_path: Path) -> None:
    seen: list[int] = []
    with client(proxy) as darkroom:
        path = darkroom.download(output, tmp_path / "new", on_bytes=seen.append)
        assert path.name == f"{output.id}.jpg"
        assert sum(seen) == output.bytes
        darkroom.download(output, tmp_path / "new", on_bytes=seen.append)
        assert sum(seen) == output.bytes
        path.rename(part_of(path, output.sha256))
        assert whole(darkroom.download(output, tmp_path / "new"), output)
    assert asked(proxy) == [None]


@pytest.mark.parametrize("length", [100, None, 1_000_000])
def test_a_bad_part_is_fetched_anew(proxy: Proxy, output: Output, tmp_path: Path, length: int | None) -> None:
    part_of(tmp_path / output.file_name, output.sha256).write_bytes(b"x" * (length or output.bytes))
    seen: list[int] = []
    with client(proxy) as darkroom:
        assert whole(darkroom.download(output, tmp_path, on_bytes=seen.append), output)
    assert asked(proxy)[-1] is None
    assert sum(seen) == output.bytes


def test_a_server_without_ranges_is_asked_for_all(proxy: Proxy, output: Output, tmp_path: Path) -> None:
    def unranged(answer: Message) -> Message:
        with Darkroom(proxy.url) as plain, plain.image(output.id) as pieces:
            return answer_of(200, b"".join(pieces))

    part_of(tmp_path / output.file_name, output.sha256).write_bytes(b"x" * 100)
    with client(proxy) as darkroom, proxy.armed(harm.altered(unranged), path=IMAGE, times=1):
        assert whole(darkroom.download(output, tmp_path), output)


def test_an_answer_with_another_range_is_not_taken(proxy: Proxy, output: Output, tmp_path: Path) -> None:
    part_of(tmp_path / output.file_name, output.sha256).write_bytes(b"x" * 100)
    change = harm.altered(lambda answer: answer.with_header("Content-Range", "bytes 5-9/10"))
    refused = pytest.raises(Unreachable, match="range")
    with client(proxy) as darkroom, proxy.armed(change, path=IMAGE), refused:
        darkroom.download(output, tmp_path)


def test_more_bytes_than_were_archived_are_not_taken(proxy: Proxy, output: Output, tmp_path: Path) -> None:
    endless = harm.answer(200, b"x" * (output.bytes + 1))
    with client(proxy) as darkroom, proxy.armed(endless, path=IMAGE), pytest.raises(Damaged, match="more"):
        darkroom.download(output, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("status", "tries"), [(503, 4), (404, 1)])
def test_passing_errors_are_retried(
    proxy: Proxy, output: Output, tmp_path: Path, status: int, tries: int
) -> None:
    refusal = harm.answer(status, b'{"code": "c", "detail": "d"}')
    with client(proxy) as darkroom, proxy.armed(refusal, path=IMAGE) as armed, pytest.raises(ApiError):
        darkroom.download(output, tmp_path)
    assert armed.struck == tries
    assert not list(tmp_path.iterdir())


def test_waits_grow_between_tries(proxy: Proxy, output: Output, tmp_path: Path) -> None:
    waited: list[float] = []
    patient = Darkroom(proxy.url, sleep=waited.append)
    with patient as darkroom, proxy.armed(harm.drop, path=IMAGE), pytest.raises(Unreachable):
        darkroom.download(output, tmp_path)
    assert waited == [0.5, 1, 2]


def test_a_name_that_is_taken_is_not_replaced(running: Running, output: Output, tmp_path: Path) -> None:
    path = running.darkroom.download(output, tmp_path, name="a/kite.jpg")
    assert path == tmp_path / "a" / "kite.jpg"
    assert running.darkroom.download(output, tmp_path, name="a/kite.jpg") == path
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        running.darkroom.download(output, tmp_path, name="a/kite.jpg")
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ""])
def test_a_name_stays_below_the_folder(running: Running, output: Output, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="below"):
        running.darkroom.download(output, tmp_path / "in", name=name)


def test_two_at_once_do_not_spoil_each_other(proxy: Proxy, output: Output, tmp_path: Path) -> None:
    go_on = threading.Event()
    with client(proxy) as first, client(proxy) as second:
        armed = proxy.arm(harm.held(go_on), path=IMAGE, times=1)
        thread = threading.Thread(target=first.download, args=[output, tmp_path])
        thread.start()
        armed.wait()
        assert whole(second.download(output, tmp_path), output)
        go_on.set()
        thread.join(20)
    (path,) = tmp_path.iterdir()
    assert whole(path, output)


def test_a_part_that_is_a_link_is_not_followed(running: Running, output: Output, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not yours")
    part_of(tmp_path / output.file_name, output.sha256).symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic"):
        running.darkroom.download(output, tmp_path)
    assert elsewhere.read_bytes() == b"not yours"


def test_a_spoiled_file_is_replaced_under_its_name(running: Running, output: Output, tmp_path: Path) -> None:
    (tmp_path / output.file_name).write_bytes(b"spoiled")
    assert whole(running.darkroom.download(output, tmp_path), output)
