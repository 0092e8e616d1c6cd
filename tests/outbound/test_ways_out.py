"""Every way out - gateways, images, notifications, the bucket - trusts the same and uses the same proxy."""

import shutil
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import certifi
import httpx
import pytest

from receiver.download.downloader import Downloader, DownloadPolicy
from receiver.download.ssrf import parse_target
from receiver.errors import (
    DarkroomError,
    EndpointForbidden,
    ForbiddenAddress,
    GatewayUnavailable,
    SettingsError,
)
from receiver.gateways.client import GatewayClient
from receiver.notifications.transport import Poster
from receiver.notifications.url_policy import NotifyPolicy
from receiver.outbound.environment import unused_variables
from receiver.outbound.proxy import Proxy, open_client
from receiver.outbound.trust import Trust
from storage.archive.object_store import ObjectStore
from storage.errors import StorageError
from tests.support.forward_proxy import USER, ForwardProxy, forward_proxy
from tests.support.raw_server import PNG, TLS, Serve, Server, redirect, reply

NAME = "images.example"
PUBLIC, OTHER = "1.1.1.1", "2606:4700:4700::1111"
LIST = b"<ListBucketResult><Name>pictures</Name><KeyCount>0</KeyCount></ListBucketResult>"
SCRIPTS = {
    "/a.png": reply(PNG),
    "/hook": reply(status="204 No Content"),
    "/v2/jobs": reply(b"{}"),
    "/pictures": reply(LIST, Content_Type="application/xml"),
}


@dataclass(frozen=True)
class Out:
    """What all ways out are given, and what DNS says."""

    trust: Trust
    proxy: Proxy | None = None
    addresses: Sequence[str] = (PUBLIC,)
    host: str = NAME

    def image(self) -> None:
        downloader = Downloader(
            DownloadPolicy(timeout_s=10),
            resolve=lambda _host: self.addresses,
            ssl_context=self.trust.context,
            proxy=self.proxy,
        )
        with downloader.fetch(parse_target(f"https://{self.host}/a.png")) as fetched:
            assert fetched.file.read() == PNG

    def notification(self) -> None:
        poster = Poster(
            NotifyPolicy(secrets=("whsec_x",)),
            timeout_s=10,
            resolve=lambda _host: self.addresses,
            ssl_context=self.trust.context,
            proxy=self.proxy,
        )
        poster.post(f"https://{self.host}/hook", {}, b"")

    def gateway(self) -> None:
        with closing(open_client(self.trust.context, self.proxy)) as client:
            sender = GatewayClient(client, {})
            assert sender.send(httpx.Request("GET", f"https://{self.host}/v2/jobs")).json() == {}

    def bucket(self) -> None:
        store = ObjectStore.connect(
            bucket="pictures",
            endpoint=f"https://{self.host}",
            region="us-east-1",
            access_key="an-access-key",
            secret_key="a-secret-key",
            addressing="path",
            ca_bundle=self.trust.bundle,
            proxy=self.proxy.url if self.proxy else None,
        )
        store.ping()


Way = Callable[[Out], None]
CHECKED: dict[str, Way] = {"image": Out.image, "notification": Out.notification}
"""Where others say the name, so that its addresses are checked here."""
OURS: dict[str, Way] = {"gateway": Out.gateway, "bucket": Out.bucket}
"""Where the operator says it."""
WAYS = {**CHECKED, **OURS}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve(SCRIPTS, tls=True)


@pytest.fixture
def proxy(server: Server) -> Iterator[ForwardProxy]:
    with forward_proxy({f"{PUBLIC}:443": server.port, f"{NAME}:443": server.port}) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def private() -> Trust:
    return Trust.load(TLS / "ca.pem", {})


def refused(way: Way, out: Out) -> str:
    with pytest.raises((DarkroomError, StorageError)) as caught:
        way(out)
    return str(caught.value)


@pytest.mark.parametrize(("name", "way"), WAYS.items(), ids=WAYS)
def test_each_way_leads_through_the_proxy(
    server: Server, proxy: ForwardProxy, private: Trust, name: str, way: Way
) -> None:
    proxy.user = USER
    way(Out(private, Proxy(proxy.url)))
    assert proxy.asked == [f"{PUBLIC if name in CHECKED else NAME}:443"], "an address where it was checked"
    assert server.names == [NAME], "TLS is with the name"
    assert f"Host: {NAME}\r\n".lower() in server.heads[0].lower()
    assert "proxy-authorization" not in server.heads[0].lower()


@pytest.mark.parametrize(
    ("way", "error"), [(Out.image, ForbiddenAddress), (Out.notification, EndpointForbidden)]
)
@pytest.mark.parametrize("inward", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "fd00::1"])
def test_a_forbidden_address_is_kept_from_the_proxy(
    proxy: ForwardProxy, private: Trust, way: Way, error: type[DarkroomError], inward: str
) -> None:
    for addresses in ([inward], [PUBLIC, inward]):
        with pytest.raises(error, match="forbidden address"):
            way(Out(private, Proxy(proxy.url), addresses))
    assert proxy.asked == []


def test_a_redirect_inward_is_kept_from_the_proxy(
    server: Server, proxy: ForwardProxy, private: Trust
) -> None:
    server.scripts["/a.png"] = redirect("https://10.0.0.1/latest")
    with pytest.raises(ForbiddenAddress):
        Out(private, Proxy(proxy.url)).image()
    assert proxy.asked == [f"{PUBLIC}:443"]


@pytest.mark.parametrize("way", CHECKED.values(), ids=CHECKED)
def test_the_next_address_is_tried_by_the_proxy(proxy: ForwardProxy, private: Trust, way: Way) -> None:
    way(Out(private, Proxy(proxy.url), [OTHER, PUBLIC]))
    assert proxy.asked == [f"[{OTHER}]:443", f"{PUBLIC}:443"]


@each_way
def test_what_a_proxy_refuses_is_told(proxy: ForwardProxy, private: Trust, way: Way) -> None:
    asked = f"{NAME} cannot be reached"
    told = refused(way, Out(private, Proxy(proxy.url), [OTHER], "cdn.example"))
    assert "by the proxy in DARKROOM_OUTBOUND__PROXY (502)" in told
    proxy.user = "user:another"
    wrong = Proxy(f"http://{USER}@127.0.0.1:{proxy.server_address[1]}")
    told = refused(way, Out(private, wrong))
    assert asked in told
    assert "does not accept the user and password" in told
    told = refused(way, Out(private, Proxy("http://127.0.0.1:1")))
    assert "the proxy in DARKROOM_OUTBOUND__PROXY refuses the connection" in told
    assert "pass-word" not in told


def test_what_a_proxy_refuses_was_not_sent(private: Trust) -> None:
    with pytest.raises(GatewayUnavailable):
        Out(private, Proxy("http://127.0.0.1:1")).gateway()


@pytest.mark.parametrize(
    ("host", "addresses", "leads"),
    [
        ("images.example", ["1.1.1.1"], True),
        ("notexample.internal", [], True),
        ("127.0.0.1", [], False),
        ("localhost", [], False),
        ("[::1]", [], False),
        ("minio.example.internal", [], False),
        ("example.internal", [], False),
        ("10.1.2.3", [], False),
        ("store.example", ["10.1.2.3"], False),
        ("store.example", ["10.1.2.3", "1.1.1.1"], True),
        ("amazonaws.com", [], True),
        ("", [], True),
    ],
)
def test_what_the_proxy_leads_to(host: str, addresses: list[str], leads: bool) -> None:
    proxy = Proxy("http://proxy:3128", ["Example.internal", "10.0.0.0/8"])
    known = [parsed for text in addresses if (parsed := parse_target(f"https://{text}").address)]
    assert proxy.leads_to(host, known) is leads


@dataclass(frozen=True)
class Given:
    """The authority as a setting or a variable."""

    setting: bool = False
    variable: str = ""
    folder: bool = False


@pytest.mark.parametrize(
    "given",
    [
        Given(setting=True),
        Given(setting=True, folder=True),
        Given(variable="SSL_CERT_FILE"),
        Given(variable="SSL_CERT_DIR", folder=True),
    ],
    ids=["setting", "setting-folder", "SSL_CERT_FILE", "SSL_CERT_DIR"],
)
@each_way
def test_a_private_authority_is_trusted_by_each_way(
    proxy: ForwardProxy, tmp_path: Path, way: Way, given: Given
) -> None:
    (tmp_path / "ours").mkdir()
    shutil.copy(TLS / "ca.pem", tmp_path / "ours" / "ours.crt")
    path = tmp_path / "ours" if given.folder else TLS / "ca.pem"
    environment = {given.variable: str(path)} if given.variable else {}
    way(Out(Trust.load(path if given.setting else None, environment), Proxy(proxy.url)))


@each_way
def test_an_untrusted_authority_is_told(proxy: ForwardProxy, server: Server, way: Way) -> None:
    told = refused(way, Out(Trust.load(None, {}), Proxy(proxy.url)))
    assert NAME in told
    assert "authority that is not trusted here" in told
    assert "DARKROOM_OUTBOUND__CA_BUNDLE" in told
    assert server.heads == []


@each_way
def test_a_certificate_for_another_name_is_told(
    proxy: ForwardProxy, server: Server, private: Trust, way: Way
) -> None:
    proxy.routes["other.example:443"] = server.port
    told = refused(way, Out(private, Proxy(proxy.url), host="other.example"))
    assert "has a TLS certificate for another name" in told
    assert server.heads == []


def test_our_authorities_stand_beside_the_usual(tmp_path: Path) -> None:
    usual, both = Trust.load(None, {}), Trust.load(TLS / "ca.pem", {})
    assert usual.bundle == certifi.where()
    count = usual.context.cert_store_stats()["x509_ca"]
    assert both.context.cert_store_stats()["x509_ca"] == count + 1
    assert ssl.create_default_context(cafile=both.bundle).cert_store_stats()["x509_ca"] == count + 1
    alone = Trust.load(None, {"SSL_CERT_FILE": str(TLS / "ca.pem")})
    assert alone.context.cert_store_stats()["x509_ca"] == 1


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("setting", None, "DARKROOM_OUTBOUND__CA_BUNDLE: .* cannot be read: No such file"),
        ("setting", "nothing", "DARKROOM_OUTBOUND__CA_BUNDLE: .* has no certificate in PEM"),
        ("SSL_CERT_FILE", "nothing", "SSL_CERT_FILE: .* has no certificate in PEM"),
        (
            "SSL_CERT_FILE",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
            "SSL_CERT_FILE: a certificate in .* is damaged",
        ),
    ],
)
def test_a_bundle_that_is_none_is_told(tmp_path: Path, name: str, content: str | None, told: str) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    setting, environment = (path, {}) if name == "setting" else (None, {name: str(path)})
    with pytest.raises(SettingsError, match=told):
        Trust.load(setting, environment)


def test_unused_variables_are_told() -> None:
    environment = {
        "https_proxy": "http://127.0.0.1:9",
        "HTTP_PROXY": "",
        "ALL_PROXY": "socks5://127.0.0.1:9",
        "NO_PROXY": "*",
        "AWS_CA_BUNDLE": "/aws.pem",
        "REQUESTS_CA_BUNDLE": "/trusted.pem",
        "SSL_CERT_FILE": "/trusted.pem",
    }
    told = unused_variables(environment, proxy=False, ca_bundle=False)
    assert [sentence.partition(" is set and not used")[0] for sentence in told] == [
        "ALL_PROXY",
        "https_proxy",
        "AWS_CA_BUNDLE",
    ]
    assert unused_variables(environment, proxy=True, ca_bundle=True) == []
