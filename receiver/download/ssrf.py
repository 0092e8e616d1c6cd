"""Validate URLs and addresses against SSRF: a table of forbidden networks, and strict parsing. No I/O.

The link to an image comes from a callback, so it is hostile until shown otherwise. The table is our own:
what the standard library calls private or global changes with its patch level, and is about another question
("is it routed?", not "where does the packet end up?").
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urljoin

import httpx

from receiver.errors import ForbiddenAddress, UnknownImageHost

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL_LENGTH = 8192
"""Characters. Presigned links with a session token pass 2000; many servers take no request line over 8192."""

MAX_HOST_LENGTH = 253
MAX_LABEL_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Block:
    """One row of the deny-list: a network that no download may reach, what it is, and the source."""

    network: Network
    what: str
    source: str


def _block(cidr: str, what: str, source: str) -> Block:
    return Block(ipaddress.ip_network(cidr), what, source)


FORBIDDEN: tuple[Block, ...] = (
    # IPv4: https://www.iana.org/assignments/iana-ipv4-special-registry
    _block("0.0.0.0/8", "this network", "RFC 791"),
    _block("10.0.0.0/8", "private", "RFC 1918"),
    _block("100.64.0.0/10", "carrier-grade NAT", "RFC 6598"),
    _block("127.0.0.0/8", "loopback", "RFC 1122"),
    _block("169.254.0.0/16", "link-local, cloud metadata", "RFC 3927"),
    _block("172.16.0.0/12", "private", "RFC 1918"),
    _block("192.0.0.0/24", "IETF protocol assignments", "RFC 6890"),
    _block("192.0.2.0/24", "documentation", "RFC 5737"),
    _block("192.31.196.0/24", "AS112 sink", "RFC 7535"),
    _block("192.52.193.0/24", "multicast tunnelling (AMT)", "RFC 7450"),
    _block("192.88.99.0/24", "6to4 relay", "RFC 7526"),
    _block("192.168.0.0/16", "private", "RFC 1918"),
    _block("192.175.48.0/24", "AS112 sink", "RFC 7534"),
    _block("198.18.0.0/15", "benchmarking", "RFC 2544"),
    _block("198.51.100.0/24", "documentation", "RFC 5737"),
    _block("203.0.113.0/24", "documentation", "RFC 5737"),
    _block("224.0.0.0/4", "multicast", "RFC 5771"),
    _block("255.255.255.255/32", "broadcast", "RFC 919"),
    _block("240.0.0.0/4", "reserved (class E)", "RFC 1112"),
    # A public address that inside Azure reaches the host's own agent.
    # https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
    _block("168.63.129.16/32", "Azure platform", "Microsoft"),
    # IPv6: https://www.iana.org/assignments/iana-ipv6-special-registry
    _block("::/128", "unspecified", "RFC 4291"),
    _block("::1/128", "loopback", "RFC 4291"),
    _block("::/96", "IPv4-compatible", "RFC 4291"),
    _block("::ffff:0:0:0/96", "IPv4-translated", "RFC 2765"),
    _block("64:ff9b:1::/48", "local NAT64", "RFC 8215"),
    _block("100::/64", "discard", "RFC 6666"),
    _block("100:0:0:1::/64", "dummy prefix", "RFC 9780"),
    _block("2001::/32", "Teredo", "RFC 4380"),
    _block("2001:2::/48", "benchmarking", "RFC 5180"),
    _block("2001::/23", "IETF protocol assignments", "RFC 2928"),  # ORCHID, AMT, DET and more
    _block("2001:db8::/32", "documentation", "RFC 3849"),
    _block("2002::/16", "6to4", "RFC 7526"),
    _block("2620:4f:8000::/48", "AS112 sink", "RFC 7534"),
    _block("3ffe::/16", "6bone, given back", "RFC 3701"),
    _block("3fff::/20", "documentation", "RFC 9637"),
    _block("5f00::/16", "segment routing (SRv6)", "RFC 9602"),
    _block("fc00::/7", "unique local", "RFC 4193"),
    _block("fe80::/10", "link-local", "RFC 4291"),
    _block("fec0::/10", "site-local", "RFC 3879"),
    _block("ff00::/8", "multicast", "RFC 4291"),
)

# IANA has given out global unicast addresses from here only, so everything else is refused, known or not.
# https://www.iana.org/assignments/ipv6-address-space
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Where VPN and proxy apps take the addresses from with which they answer every name.
FAKE_IP = ipaddress.IPv4Network("198.18.0.0/15")
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})

_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:@%\[\]\\]+))(?::(?P<port>[0-9]{0,5}))?")
_URL = re.compile(r"(?P<scheme>[A-Za-z]+)://(?P<authority>[^/?#]*)")
# Underscores are no part of host names, yet buckets on virtual hosts have them.
_DNS_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORTS = {"http": 80, "https": 443}


def parse_address(text: str) -> Address:
    """Parse an address that a resolver returned; an IPv4-mapped one becomes the IPv4 address that it is.

    Raises ForbiddenAddress for a zone (`fe80::1%eth0` is meant for one link) and for what is no address.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ForbiddenAddress(f"{text[:60]!r} is not an IP address.") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise ForbiddenAddress("The address has a zone, so it is valid on one link only.")
        return address.ipv4_mapped or address
    return address


def forbidden_reason(address: Address) -> str | None:
    """Return why no download may go to an address, or None if it may.

    NAT64's public prefix is judged by the IPv4 address inside, because networks without IPv4 reach every
    IPv4 host through it (RFC 6052, RFC 6147). Other forms with an IPv4 address inside are refused.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return forbidden_reason(inner)
    for block in FORBIDDEN:
        if address in block.network:
            return f"{block.what} ({block.source})"
    return _unknown_form(address) if isinstance(address, ipaddress.IPv6Address) else None


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped


def _unknown_form(address: ipaddress.IPv6Address) -> str | None:
    if address not in _GLOBAL_UNICAST:
        return "not global unicast (RFC 4291)"
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return "ISATAP (RFC 5214)"
    return None


def address_allowed(address: Address, networks: Iterable[Network]) -> bool:
    """Return whether an address is on the allow-list of networks, which overrides the table."""
    return any(address in network for network in networks)


def host_allowed(host: str, hosts: Sequence[str]) -> bool:
    """Return whether a host is on an allow-list or a subdomain of one there; an empty list allows any."""
    names = [name.lower().strip(".") for name in hosts]
    return not names or any(host == name or host.endswith(f".{name}") for name in names)


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed URL. Its text is parsed once, so that no second parser can disagree about the host."""

    scheme: str
    host: str
    """In lower case and ASCII, without a trailing dot or brackets."""
    port: int
    path: str
    query: str | None
    address: Address | None
    """Set where the host is an address and not a name."""

    @property
    def usual_port(self) -> bool:
        """Whether the port is the scheme's default."""
        return self.port == _PORTS[self.scheme]

    @property
    def authority(self) -> str:
        """The value for the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.usual_port else f"{host}:{self.port}"

    @property
    def request_target(self) -> str:
        """Path and query, as they go on the wire."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    @property
    def source_url(self) -> str:
        """The URL without its query, which may hold a signature: safe to store and show."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def label(self) -> str:
        """Host and path, shortened, for messages."""
        text = f"{self.authority}{self.path}"
        return text if len(text) <= MAX_LABEL_LENGTH else f"{text[: MAX_LABEL_LENGTH - 1]}…"

    def over_https(self) -> Target:
        """Return the same place over https, on its usual port in place of that of http."""
        if self.scheme == "https":
            return self
        return replace(self, scheme="https", port=_PORTS["https"] if self.usual_port else self.port)

    def redirect(self, location: str) -> Target:
        """Return the next redirect hop, over https after https. Raises ForbiddenAddress as `parse_target`."""
        try:
            url = urljoin(f"{self.scheme}://{self.authority}{self.request_target}", location)
        except ValueError:
            raise ForbiddenAddress(f"{self.label} redirects to a malformed URL.") from None
        target = parse_target(url)
        return target.over_https() if self.scheme == "https" else target


def check_target(target: Target, hosts: Sequence[str]) -> None:
    """Raise ForbiddenAddress unless a target is https on port 443, and UnknownImageHost if not in `hosts`."""
    if target.scheme != "https":
        raise ForbiddenAddress(f"{target.label} is not https.")
    if not target.usual_port:
        raise ForbiddenAddress(f"{target.label} is not on port 443.")
    if not host_allowed(target.host, hosts):
        raise UnknownImageHost(
            f"{target.host} is not a host that this gateway's images are known to come from. If they do, add "
            "it to DARKROOM_GATEWAYS__<NAME>__IMAGE_HOSTS."
        )


def check_addresses(
    target: Target, addresses: Iterable[Address], hosts: Sequence[str], networks: Sequence[Network]
) -> None:
    """Raise ForbiddenAddress unless all addresses of a target are in `networks`.

    Others must not be forbidden, and are for a target as `check_target` accepts it.
    """
    outside = [address for address in addresses if not address_allowed(address, networks)]
    if outside:
        check_target(target, hosts)
    for address in outside:
        if reason := forbidden_reason(address):
            raise ForbiddenAddress(f"{target.host} leads to a forbidden address: {reason}. {_fix(address)}")


def _fix(address: Address) -> str:
    if address in FAKE_IP:
        return (
            "A VPN or proxy here answers DNS with fake addresses (fake-IP): exempt the host from it, or set "
            f"DARKROOM_DOWNLOAD__ALLOW_NETWORKS={FAKE_IP}."
        )
    return "DARKROOM_DOWNLOAD__ALLOW_NETWORKS can allow it."


def parse_link(link: str) -> Target:
    """Parse the link of an image as `parse_target`; one that leaves out its scheme is https."""
    return parse_target(f"https:{link}" if link.startswith("//") else link)


def parse_target(url: str) -> Target:
    """Parse a URL strictly. Raises ForbiddenAddress if it is not spelled plainly.

    Refused: schemes other than http and https, credentials, control characters, over 8192 characters, zones,
    percent signs in the host, and IPv4 addresses in any spelling but four decimal numbers.
    """
    if len(url) > MAX_URL_LENGTH or not url.isprintable():
        raise ForbiddenAddress(f"The URL is over {MAX_URL_LENGTH} characters or has control characters.")
    match = _URL.match(url)
    scheme = match["scheme"].lower() if match else ""
    if match is None or scheme not in _PORTS:
        raise ForbiddenAddress("The URL is not an https URL.")
    if "@" in match["authority"]:
        raise ForbiddenAddress("The URL has credentials in it.")
    authority = _AUTHORITY.fullmatch(match["authority"])
    if authority is None:
        raise ForbiddenAddress("The URL has a malformed host or port.")
    host, address = _parse_host(authority)
    port = int(authority["port"] or _PORTS[scheme])
    if not 1 <= port <= 65535:
        raise ForbiddenAddress(f"The URL has port {port}.")
    path, query = _parse_path(scheme, url[match.end() :])
    return Target(scheme, host, port, path, query, address)


def _parse_path(scheme: str, rest: str) -> tuple[str, str | None]:
    """Percent-encode path and query, keeping what is encoded already; the fragment is dropped."""
    try:
        # With a placeholder: the host was parsed by stricter rules.
        parsed = httpx.URL(f"{scheme}://host{rest}")
    except httpx.InvalidURL:
        raise ForbiddenAddress("The URL is malformed.") from None
    path, mark, query = parsed.raw_path.decode("ascii").partition("?")
    return path, query if mark else None


def _parse_host(authority: re.Match[str]) -> tuple[str, Address | None]:
    if authority["v6"] is not None:
        return _parse_v6(authority["v6"])
    written: str = authority["name"]
    host = _to_ascii(written).removesuffix(".")
    labels = host.split(".")
    if len(host) > MAX_HOST_LENGTH or not all(_DNS_LABEL.fullmatch(label) for label in labels):
        raise ForbiddenAddress("The URL has a malformed host name.")
    # What ends in a number is an address to some resolver: 2130706433, 0x7f.1, 0177.0.0.1, 127.1.
    # https://url.spec.whatwg.org/#ends-in-a-number-checker
    if _NUMBER.fullmatch(labels[-1]) is None:
        return host, None
    try:
        address = ipaddress.IPv4Address(host)
    except ipaddress.AddressValueError:
        address = None
    if address is None or not written.isascii():
        raise ForbiddenAddress("The URL has an oddly spelled IPv4 address.")
    return str(address), address


def _parse_v6(text: str) -> tuple[str, Address]:
    try:
        literal = ipaddress.IPv6Address(text)
    except ipaddress.AddressValueError:
        raise ForbiddenAddress("The URL has a malformed IPv6 address.") from None
    return str(literal), literal.ipv4_mapped or literal


def _to_ascii(name: str) -> str:
    """Encode an international name (IDNA 2008) and put it in lower case."""
    if len(name) > MAX_HOST_LENGTH + 1:  # before the encoding, which costs time for each character
        raise ForbiddenAddress("The URL has a host name that is too long.")
    if name.isascii():
        return name.lower()
    try:
        return httpx.URL(scheme="https", host=name).raw_host.decode("ascii")
    except (httpx.InvalidURL, UnicodeError):
        raise ForbiddenAddress("The URL has a malformed international host name.") from None
