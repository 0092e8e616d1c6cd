"""Send requests through a forward proxy: decide what goes through it, and open tunnels with CONNECT.

The proxies of the environment (HTTPS_PROXY and such) are not used, so that all ways out follow one rule.
"""

import ipaddress
from base64 import b64encode
from collections.abc import Iterable, Sequence
from ssl import SSLContext, SSLError

import httpcore
import httpx

from storage.network import causes

_LOOPBACK = ("127.0.0.0/8", "::1/128")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxy:
    """A forward proxy over http, and what is reached without it. Thread-safe."""

    def __init__(self, url: str, direct: Sequence[str] = ()) -> None:
        """`direct` is reached without it: hosts with their subdomains, and networks. Loopback always is."""
        self.url = url
        """With its credentials."""
        at = httpx.Proxy(url)
        self._origin = httpcore.URL(str(at.url))
        self._auth = at.raw_auth
        networks, hosts = [ipaddress.ip_network(one) for one in _LOOPBACK], ["localhost"]
        for one in direct:
            try:
                networks.append(ipaddress.ip_network(one))
            except ValueError:
                hosts.append(one.lower().strip("."))
        self._networks, self._hosts = networks, hosts

    def leads_to(self, host: str, addresses: Iterable[Address] = ()) -> bool:
        """Return whether a host is reached through it; `addresses` are those of its name, if known."""
        known = list(addresses) or _literal(host)
        name = host.lower()
        if any(name == one or name.endswith(f".{one}") for one in self._hosts):
            return False
        return not known or not all(any(one in net for net in self._networks) for one in known)

    def tunnel(self, address: str, port: int, timeout_s: float) -> httpcore.NetworkStream:
        """Open a connection through it to an address. Raises httpcore's ProxyError or TimeoutException."""
        authority = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        origin = self._origin.origin
        url = httpcore.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=authority)
        headers = [("Host", authority), *self._credentials()]
        limits = dict.fromkeys(("connect", "read", "write"), timeout_s)
        request = httpcore.Request("CONNECT", url, headers=headers, extensions={"timeout": limits})
        connection = httpcore.HTTPConnection(origin)
        try:
            response = connection.handle_request(request)
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise httpcore.ProxyError(str(error)) from error
        if not httpx.codes.is_success(response.status):
            connection.close()
            raise httpcore.ProxyError(str(response.status))
        stream: httpcore.NetworkStream = response.extensions["network_stream"]
        return stream

    def _credentials(self) -> list[tuple[str, str]]:
        if self._auth is None:
            return []
        return [("Proxy-Authorization", f"Basic {b64encode(b':'.join(self._auth)).decode()}")]


def _literal(host: str) -> list[Address]:
    try:
        return [ipaddress.ip_address(host.strip("[]"))]
    except ValueError:
        return []


def open_client(context: SSLContext, proxy: Proxy | None) -> httpx.Client:
    """Return the HTTP client for gateways. Their names are the operator's own, so the proxy resolves them."""
    transport = httpx.HTTPTransport(verify=context, trust_env=False)
    routed = transport if proxy is None else _Routed(transport, context, proxy)
    timeout = httpx.Timeout(30, connect=10)
    return httpx.Client(transport=routed, timeout=timeout, trust_env=False, follow_redirects=False)


class _Routed(httpx.BaseTransport):
    """Sends what the proxy leads to through it, and all else directly."""

    def __init__(self, direct: httpx.BaseTransport, context: SSLContext, proxy: Proxy) -> None:
        self._direct = direct
        self._proxy = proxy
        self._through = httpx.HTTPTransport(verify=context, trust_env=False, proxy=httpx.Proxy(proxy.url))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not self._proxy.leads_to(request.url.host):
            return self._direct.handle_request(request)
        try:
            return self._through.handle_request(request)
        except httpx.ConnectError as error:
            if any(isinstance(cause, SSLError) for cause in causes(error)):
                raise
            raise httpx.ProxyError(str(error)) from error  # it is what was connected to

    def close(self) -> None:
        self._direct.close()
        self._through.close()
