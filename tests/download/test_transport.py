"""Where a download goes and where it does not, by the record of the servers that it could have reached."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network

import pytest

from receiver.download.downloader import Downloader, DownloadPolicy
from receiver.download.ssrf import parse_target
from receiver.download.transport import Resolver
from receiver.errors import DarkroomError, ForbiddenAddress, ImageUnavailable
from tests.support.raw_server import PNG, TLS, Serve, redirect, reply, serving

POLICY = DownloadPolicy(allow_networks=(ip_network("127.0.0.0/8"),), timeout_s=20)
STALLED = replace(POLICY, timeout_s=0.3)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with serving() as start:
        yield start


def names(table: Mapping[str, Sequence[str]]) -> Resolver:
    return lambda host: table[host]


def failure(downloader: Downloader, url: str, hosts: Sequence[str] = ()) -> DarkroomError:
    with pytest.raises(DarkroomError) as caught, downloader.fetch(parse_target(url), hosts=hosts):
        pass
    assert "secret" not in str(caught.value)
    return caught.value


def test_redirects_are_followed_up_to_the_limit(serve: Serve) -> None:
    server = serve({f"/{n}": redirect(f"{n + 1}?sig=secret") for n in range(1, 5)} | {"/5": reply(PNG)})
    with Downloader(POLICY).fetch(parse_target(f"{server.url}/2")) as fetched:
        assert fetched.source_url == f"{server.url}/2"
    raised = failure(Downloader(POLICY), f"{server.url}/1")
    assert isinstance(raised, ImageUnavailable)
    assert "more than 3 times" in str(raised)
    assert server.connections == 8


@pytest.mark.parametrize("status", ["301 Moved", "303 See Other", "307 Temporary", "308 Permanent"])
def test_every_kind_of_redirect_is_checked(serve: Serve, status: str) -> None:
    server = serve({"/a.png": redirect("https://[::1]/latest/meta-data?sig=secret", status)})
    assert "loopback" in str(failure(Downloader(POLICY), f"{server.url}/a.png"))


@pytest.mark.parametrize(
    "location",
    [
        "https://10.0.0.1/a.png",
        "https://169.254.169.254/latest/meta-data/",
        "https://inward.example/a.png",
        "https://user:secret@images.example/a.png",
        "https://2130706433/a.png",
        "http://outward.example/a.png",
        "https://outward.example:8443/a.png",
        "file:///etc/passwd",
    ],
)
def test_redirect_inward_is_refused(serve: Serve, location: str) -> None:
    server = serve({"/a.png": redirect(location)})
    resolve = names({"inward.example": ["192.168.1.1"], "outward.example": ["1.1.1.1"]})
    assert isinstance(failure(Downloader(POLICY, resolve=resolve), f"{server.url}/a.png"), ForbiddenAddress)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://images.example/a.png", "not https"),
        ("https://images.example:8443/a.png", "not on port 443"),
        ("https://user:secret@images.example/a.png", "credentials"),
        ("https://other.example/a.png", "not a host that"),
        ("https://0x7f.1/a.png", "oddly spelled"),
    ],
)
def test_bad_url_is_refused_without_a_lookup(url: str, message: str) -> None:
    looked_up: list[str] = []

    def look_up(host: str) -> Sequence[str]:
        looked_up.append(host)
        return ["1.1.1.1"]

    downloader = Downloader(DownloadPolicy(), resolve=look_up)
    raised = failure(downloader, url, hosts=["images.example"])
    assert isinstance(raised, ForbiddenAddress)
    assert message in str(raised)
    assert looked_up == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "10.0.0.1"]
)
def test_forbidden_address_in_the_url_is_refused(host: str) -> None:
    assert isinstance(failure(Downloader(DownloadPolicy()), f"https://{host}/a.png"), ForbiddenAddress)


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["1.1.1.1", "127.0.0.1"],
        ["::ffff:127.0.0.1"],
        ["2606:4700::1", "fe80::1%eth0"],
        ["nonsense"],
    ],
)
def test_name_with_one_bad_address_is_refused(answers: list[str]) -> None:
    downloader = Downloader(DownloadPolicy(), resolve=names({"images.example": answers}))
    assert isinstance(failure(downloader, "https://images.example/a.png"), ForbiddenAddress)


def test_name_with_a_good_and_a_bad_address_is_not_connected_to(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG)})
    downloader = Downloader(POLICY, resolve=names({"images.example": ["127.0.0.1", "10.0.0.1"]}))
    raised = failure(downloader, f"http://images.example:{server.port}/a.png")
    assert isinstance(raised, ForbiddenAddress)
    assert server.connections == 0


def test_only_the_checked_address_is_connected_to_when_the_name_changes_its_answer(serve: Serve) -> None:
    checked = serve({"/a.png": reply(PNG)})
    rebound = serve({"/a.png": reply(PNG)}, at=("127.0.0.2", checked.port))
    answers = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]])
    downloader = Downloader(POLICY, resolve=lambda _host: next(answers))
    with downloader.fetch(parse_target(f"http://images.example:{checked.port}/a.png")) as fetched:
        assert fetched.final_host == "images.example"
    assert (checked.connections, rebound.connections) == (1, 0)
    assert f"Host: images.example:{checked.port}\r\n" in checked.heads[0]
    assert len(list(answers)) == 2


def test_next_checked_address_is_tried_when_one_does_not_answer(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG)})
    downloader = Downloader(POLICY, resolve=names({"images.example": ["127.0.0.3", "127.0.0.1"]}))
    with downloader.fetch(parse_target(f"http://images.example:{server.port}/a.png")) as fetched:
        assert fetched.bytes == len(PNG)


def test_allowed_network_is_exempt_from_the_host_list(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG)})
    with Downloader(POLICY).fetch(parse_target(f"{server.url}/a.png"), hosts=["cdn.example"]) as fetched:
        assert fetched.bytes == len(PNG)


def unknown(host: str) -> Sequence[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize("resolve", [unknown, lambda _host: []])
def test_unknown_name_is_unavailable(resolve: Resolver) -> None:
    raised = failure(Downloader(POLICY, resolve=resolve), "https://images.example/a.png")
    assert isinstance(raised, ImageUnavailable)


def test_lookup_that_hangs_is_given_up() -> None:
    over = threading.Event()

    def hang(_host: str) -> Sequence[str]:
        over.wait(20)
        return []

    raised = failure(Downloader(STALLED, resolve=hang), "https://images.example/a.png")
    over.set()
    assert isinstance(raised, ImageUnavailable)


def test_proxies_of_the_environment_are_not_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, proxy = serve({"/a.png": reply(PNG)}), serve({})
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    with Downloader(POLICY).fetch(parse_target(f"{server.url}/a.png")):
        pass
    assert (server.connections, proxy.connections) == (1, 0)


TO_LOOPBACK = names({name: ["127.0.0.1"] for name in ("images.example", "cdn.example", "other.example")})


def over_tls() -> Downloader:
    context = ssl.create_default_context(cafile=TLS / "ca.pem")
    return Downloader(POLICY, resolve=TO_LOOPBACK, ssl_context=context)


def test_certificate_is_checked_against_the_name_and_each_name_has_its_own_connection(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG)}, tls=True)
    downloader = over_tls()
    for name in ("images.example", "cdn.example"):
        with downloader.fetch(parse_target(f"https://{name}:{server.port}/a.png")) as fetched:
            assert fetched.file.read() == PNG
    assert server.names == ["images.example", "cdn.example"]
    for sent, head in zip(server.names, server.heads, strict=True):
        assert f"Host: {sent}:{server.port}\r\n" in head


def test_certificate_for_another_name_is_refused(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG)}, tls=True)
    raised = failure(over_tls(), f"https://other.example:{server.port}/a.png")
    assert isinstance(raised, ImageUnavailable)
    assert "certificate" in str(raised)
    assert server.heads == []


def test_certificate_of_an_unknown_authority_is_refused(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG)}, tls=True)
    raised = failure(Downloader(POLICY, resolve=TO_LOOPBACK), f"https://images.example:{server.port}/a.png")
    assert isinstance(raised, ImageUnavailable)
    assert server.heads == []


def test_redirect_from_https_to_http_is_refused(serve: Serve) -> None:
    plain = serve({"/a.png": reply(PNG)})
    server = serve({"/a.png": redirect(f"{plain.url}/a.png")}, tls=True)
    raised = failure(over_tls(), f"https://images.example:{server.port}/a.png")
    assert isinstance(raised, ForbiddenAddress)
    assert plain.connections == 0


def test_tls_handshake_that_stalls_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        raised = failure(Downloader(STALLED), f"https://127.0.0.1:{listener.getsockname()[1]}/a.png")
    assert isinstance(raised, ImageUnavailable)


def test_connection_is_closed_when_the_time_is_over_before_the_handshake() -> None:
    times = iter([0.0, 0.0])  # the start and the connection
    with socket.create_server(("127.0.0.1", 0)) as listener:
        downloader = Downloader(POLICY, monotonic=lambda: next(times, 1000.0))
        raised = failure(downloader, f"https://127.0.0.1:{listener.getsockname()[1]}/a.png")
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            assert connection.recv(1) == b""
    assert isinstance(raised, ImageUnavailable)


def test_addresses_of_both_families_are_tried_in_turns(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG)})
    answers = ["::1", "::1", "::1", "::1", "::1", "127.0.0.1"]
    policy = replace(POLICY, allow_networks=(ip_network("127.0.0.0/8"), ip_network("::1/128")))
    downloader = Downloader(policy, resolve=names({"images.example": answers}))
    with downloader.fetch(parse_target(f"http://images.example:{server.port}/a.png")) as fetched:
        assert fetched.bytes == len(PNG)


def test_host_on_the_list_cannot_redirect_to_one_that_is_not(serve: Serve) -> None:
    server = serve({"/a.png": redirect("https://other.example/a.png?sig=secret")})
    downloader = Downloader(POLICY, resolve=names({"other.example": ["1.1.1.1"]}))
    raised = failure(downloader, f"{server.url}/a.png", hosts=["images.example"])
    assert isinstance(raised, ForbiddenAddress)
    assert "other.example is not a host that" in str(raised)


@pytest.mark.parametrize("host", ["evilimages.example", "images.example.evil.example", "example"])
def test_host_that_only_looks_like_one_on_the_list_is_refused(host: str) -> None:
    raised = failure(Downloader(DownloadPolicy()), f"https://{host}/a.png", hosts=["images.example"])
    assert "not a host that" in str(raised)


def test_name_with_very_many_addresses_costs_a_few_tries_and_every_one_is_checked(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG)})
    dead = [f"127.0.{n // 250}.{n % 250 + 2}" for n in range(5000)]
    url = f"http://images.example:{server.port}/a.png"
    raised = failure(Downloader(POLICY, resolve=lambda _host: [*dead, "127.0.0.1"]), url)
    assert isinstance(raised, ImageUnavailable)
    assert server.connections == 0
    raised = failure(Downloader(POLICY, resolve=lambda _host: ["127.0.0.1", *dead, "10.0.0.1"]), url)
    assert isinstance(raised, ForbiddenAddress)
    assert server.connections == 0


def test_name_that_changes_its_answer_between_two_hops_is_checked_at_each(serve: Serve) -> None:
    server = serve({"/a.png": redirect("/b.png"), "/b.png": reply(PNG)})
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    downloader = Downloader(POLICY, resolve=lambda _host: next(answers))
    raised = failure(downloader, f"http://images.example:{server.port}/a.png")
    assert isinstance(raised, ForbiddenAddress)
    assert server.connections == 1
