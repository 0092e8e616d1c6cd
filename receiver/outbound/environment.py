"""Find variables that other programs obey on their way out, and that are not used here."""

from collections.abc import Mapping

from storage.network import CA_BUNDLE, PROXY

_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})
_BUNDLES = frozenset({"AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"})


def unused_variables(environment: Mapping[str, str], *, proxy: bool, ca_bundle: bool) -> list[str]:
    """Return a sentence for each that is set, unless the setting in its place is: `proxy`, `ca_bundle`."""
    given = sorted((name, value) for name, value in environment.items() if value)
    trusted = environment.get("SSL_CERT_FILE")
    proxies = [name for name, _ in given if name.upper() in _PROXIES and not proxy]
    bundles = [name for name, value in given if name in _BUNDLES and value != trusted and not ca_bundle]
    return [
        *(f"{name} is set and not used: {PROXY} is the proxy for every way out." for name in proxies),
        *(f"{name} is set and not used: {CA_BUNDLE} or SSL_CERT_FILE names its file." for name in bundles),
    ]
