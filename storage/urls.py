"""Normalize hosts of URLs, so that each host has one spelling."""

from ipaddress import IPv6Address


def authority_of(url: str) -> str:
    """Return host and port of a validated URL; the port only if it is not the scheme's default.

    The host is in lower case and ASCII (IDNA 2008), without a trailing dot; an IPv6 address is in its short
    form (RFC 5952), and an IPv4-mapped one is the IPv4 address that it is.
    """
    import httpx  # a process that only takes callbacks does without

    read = httpx.URL(url)
    host = read.raw_host.decode("ascii").removesuffix(".")
    if ":" in host:
        literal = IPv6Address(host)
        host = f"[{literal}]" if literal.ipv4_mapped is None else str(literal.ipv4_mapped)
    return host if read.port is None else f"{host}:{read.port}"


def origin_of(url: str) -> str:
    """Return scheme, host and port of such a URL, which may be shown: the rest may hold a secret."""
    import httpx

    return f"{httpx.URL(url).scheme}://{authority_of(url)}"
