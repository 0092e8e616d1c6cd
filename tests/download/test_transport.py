"""Where a download goes and where it does not, by the record of the servers that it could have reached."""

import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network

import pytest

from receiver.download.downloader import Downloader, DownloadPolicy
from receiver.download.lookup import Resolver
from receiver.download.ssrf import parse_target
from receiver.errors import DarkroomError, ForbiddenAddress, ImageUnavailable, UnknownImageHost
from tests.download.test_download import POLICY, STALLED, failure, fetched
from tests.support.raw_server import PNG, TLS, Serve, redirect, reply


def names(table: Mapping[str, Sequence[str]]) -> Resolver:
    return lambda host: table[host]


def test_redirects_are_followed_up_to_the_limit(serve: Serve) -> None:
    server = serve({f"/{n}": redirect(f"{n + 1}?sig=secret") for n in range(1, 5)} | {"/5": reply(PNG)})
    with Downloader(POLICY).fetch(parse_target(f"{server.url}/2")) as image:
        assert image.source_url == f"{server.url}/2"
    failure(Downloader(POLICY), f"{server.url}/1", ImageUnavailable, "more than 3 times")
    assert server.connections == 8


@pytest.mark.parametrize("status", ["301 Moved", "303 See Other", "307 Temporary", "308 Permanent"])
def test_every_kind_of_redirect_is_checked(serve: Serve, status: str) -> None:
    server = serve({"/a.png": redirect("https://[::1]/latest/meta-data?sig=secret", status)})
    failure(Downloader(POLICY), f"{server.url}/a.png", ForbiddenAddress, "loopback")


@pytest.mark.parametrize(
    "location",
    [
        "https://10.0.0.1/a.png",
        "https://169.254.169.254/latest/meta-data/",
        "https://inward.example/a.png",
        "https://user:secret@images.example/a.png",
        "https://2130706433/a.png",
        "http://outward.example:8080/a.png",
        "https://outward.example:8443/a.png",
        "file:///etc/passwd",
    ],
)
def test_redirect_inward_is_refused(serve: Serve, location: str) -> None:
    server = serve({"/a.png": redirect(location)})
    resolve = names({"inward.example": ["192.168.1.1"], "outward.example": ["1.1.1.1"]})
    failure(Downloader(POLICY, resolve=resolve), f"{server.url}/a.png", ForbiddenAddress)


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("http://images.example:8080/a.png", ForbiddenAddress, "not on port 443"),
        ("https://images.example:8443/a.png", ForbiddenAddress, "not on port 443"),
        ("https://user:secret@images.example/a.png", ForbiddenAddress, "credentials"),
        ("http://other.example/a.png", UnknownImageHost, "__IMAGE_HOSTS"),
        ("https://other.example/a.png", UnknownImageHost, "__IMAGE_HOSTS"),
        ("https://evilimages.example/a.png", UnknownImageHost, "not a host that"),
        ("https://images.example.evil.example/a.png", UnknownImageHost, "not a host that"),
        ("https://example/a.png", UnknownImageHost, "not a host that"),
        ("https://0x7f.1/a.png", ForbiddenAddress, "oddly spelled"),
    ],
)
def test_bad_url_is_refused_without_a_lookup(url: str, kind: type[DarkroomError], message: str) -> None:
    looked_up: list[str] = []

    def look_up(host: str) -> Sequence[str]:
        looked_up.append(host)
        return ["1.1.1.1"]

    downloader = Downloader(DownloadPolicy(), resolve=look_up)
    failure(downloader, url, kind, message, ["images.example"])
    assert looked_up == []


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
    failure(downloader, "https://images.example/a.png", ForbiddenAddress)


def test_only_checked_address_is_connected_to(serve: Serve) -> None:
    """DNS rebinding: the name gives another address after the one that was checked."""
    checked = serve({"/a.png": reply(PNG)})
    rebound = serve({"/a.png": reply(PNG)}, at=("127.0.0.2", checked.port))
    answers = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]])
    downloader = Downloader(POLICY, resolve=lambda _host: next(answers))
    fetched(downloader, f"http://images.example:{checked.port}/a.png")
    assert (checked.connections, rebound.connections) == (1, 0)
    assert f"Host: images.example:{checked.port}\r\n" in checked.heads[0]
    assert len(list(answers)) == 2


@pytest.mark.parametrize("answers", [["127.0.0.3", "127.0.0.1"], [*["::1"] * 5, "127.0.0.1"]])
def test_addresses_of_both_families_are_tried(serve: Serve, answers: list[str]) -> None:
    server = serve({"/a.png": reply(PNG)})
    policy = replace(POLICY, allow_networks=(ip_network("127.0.0.0/8"), ip_network("::1/128")))
    downloader = Downloader(policy, resolve=names({"images.example": answers}))
    fetched(downloader, f"http://images.example:{server.port}/a.png")


def test_allowed_network_is_exempt_from_the_host_list(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG)})
    fetched(Downloader(POLICY), f"{server.url}/a.png", hosts=["cdn.example"])


def unknown(host: str) -> Sequence[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize("resolve", [unknown, lambda _host: []])
def test_unknown_name_is_unavailable(resolve: Resolver) -> None:
    failure(Downloader(POLICY, resolve=resolve), "https://images.example/a.png", ImageUnavailable)


def test_lookup_that_hangs_is_given_up() -> None:
    over = threading.Event()

    def hang(_host: str) -> Sequence[str]:
        over.wait(20)
        return []

    failure(Downloader(STALLED, resolve=hang), "https://images.example/a.png", ImageUnavailable)
    over.set()


def test_proxies_of_the_environment_are_not_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, proxy = serve({"/a.png": reply(PNG)}), serve({})
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    fetched(Downloader(POLICY), f"{server.url}/a.png")
    assert (server.connections, proxy.connections) == (1, 0)


TO_LOOPBACK = names({name: ["127.0.0.1"] for name in ("images.example", "cdn.example", "other.example")})


def over_tls() -> Downloader:
    context = ssl.create_default_context(cafile=TLS / "ca.pem")
    return Downloader(POLICY, resolve=TO_LOOPBACK, ssl_context=context)


def test_certificate_is_checked_against_each_name(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG)}, tls=True)
    downloader = over_tls()
    for name in ("images.example", "cdn.example"):
        fetched(downloader, f"https://{name}:{server.port}/a.png")
    assert server.names == ["images.example", "cdn.example"]
    for sent, head in zip(server.names, server.heads, strict=True):
        assert f"Host: {sent}:{server.port}\r\n" in head


def test_certificate_of_another_name_or_signer(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG)}, tls=True)
    failure(over_tls(), f"https://other.example:{server.port}/a.png", ImageUnavailable, "certificate")
    strict = Downloader(POLICY, resolve=TO_LOOPBACK)
    failure(strict, f"https://images.example:{server.port}/a.png", ImageUnavailable)
    assert server.heads == []


def test_redirect_from_https_to_http_stays_on_https(serve: Serve) -> None:
    plain = serve({"/b.png": reply(PNG)})
    server = serve({"/a.png": redirect(f"{plain.url}/b.png"), "/b.png": reply(PNG)}, tls=True)
    failure(over_tls(), f"https://images.example:{server.port}/a.png", ImageUnavailable)
    assert plain.heads == []
    server.scripts["/a.png"] = redirect(f"http://cdn.example:{server.port}/b.png")
    fetched(over_tls(), f"https://images.example:{server.port}/a.png")


def test_plain_http_is_asked_over_https_outside_of_allowed_networks() -> None:
    fake_ip = names({"images.example": ["198.18.0.7"]})
    for policy in (POLICY, DownloadPolicy()):
        downloader = Downloader(policy, resolve=fake_ip)
        why = r"fake-IP.*ALLOW_NETWORKS=198\.18\.0\.0/15"
        failure(downloader, "http://images.example/a.png", ForbiddenAddress, why, ["images.example"])


def test_tls_handshake_that_stalls_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/a.png"
        failure(Downloader(STALLED), url, ImageUnavailable)


def test_connection_is_closed_when_time_is_over() -> None:
    times = iter([0.0, 0.0])  # the start and the connection
    with socket.create_server(("127.0.0.1", 0)) as listener:
        downloader = Downloader(POLICY, monotonic=lambda: next(times, 1000.0))
        failure(downloader, f"https://127.0.0.1:{listener.getsockname()[1]}/a.png", ImageUnavailable)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            assert connection.recv(1) == b""


def test_redirect_to_a_host_off_the_list_is_refused(serve: Serve) -> None:
    server = serve({"/a.png": redirect("https://other.example/a.png?sig=secret")})
    downloader = Downloader(POLICY, resolve=names({"other.example": ["1.1.1.1"]}))
    why = "other.example is not a host that"
    failure(downloader, f"{server.url}/a.png", UnknownImageHost, why, ["images.example"])


def test_every_one_of_very_many_addresses_is_checked(serve: Serve) -> None:
    server = serve({"/a.png": reply(PNG)})
    dead = [f"127.0.{n // 250}.{n % 250 + 2}" for n in range(5000)]
    url = f"http://images.example:{server.port}/a.png"
    failure(Downloader(POLICY, resolve=lambda _host: [*dead, "127.0.0.1"]), url, ImageUnavailable)
    rebinding = Downloader(POLICY, resolve=lambda _host: ["127.0.0.1", *dead, "10.0.0.1"])
    failure(rebinding, url, ForbiddenAddress)
    assert server.connections == 0


def test_name_is_checked_at_each_hop(serve: Serve) -> None:
    server = serve({"/a.png": redirect("/b.png"), "/b.png": reply(PNG)})
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    downloader = Downloader(POLICY, resolve=lambda _host: next(answers))
    failure(downloader, f"http://images.example:{server.port}/a.png", ForbiddenAddress)
    assert server.connections == 1
