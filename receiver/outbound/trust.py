"""Choose the authorities that TLS trusts, for every way out: one SSL context, and the same list as a file.

They are certifi's, as httpx and boto3 have it; where SSL_CERT_FILE or SSL_CERT_DIR is set, those there in
their place (https://www.python-httpx.org/advanced/ssl/). Those of DARKROOM_OUTBOUND__CA_BUNDLE are trusted as
well. boto3 takes neither a context nor a folder, so several sources become one temporary file for it.
"""

import atexit
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Self

import certifi

from receiver.errors import SettingsError
from storage.network import CA_BUNDLE

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


@dataclass(frozen=True, slots=True)
class Trust:
    """The authorities that are trusted."""

    context: ssl.SSLContext
    bundle: str
    """The path of a file with all of them, in PEM."""

    @classmethod
    def load(cls, ca_bundle: Path | None, environment: Mapping[str, str]) -> Self:
        """Read them; raise SettingsError that names the setting or variable whose file is unusable."""
        name, path = _usual(environment)
        found = _certificates(name, path)
        context = _context(name, path, found)
        if ca_bundle is None and path.is_file():
            return cls(context, str(path))
        if ca_bundle is not None:
            ours = _certificates(CA_BUNDLE, ca_bundle)
            _context(CA_BUNDLE, ca_bundle, ours, to=context)
            found += ours
        return cls(context, _file("\n".join(dict.fromkeys(found))))


def _usual(environment: Mapping[str, str]) -> tuple[str, Path]:
    """Return where the usual authorities are, and the name of what says so."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if value := environment.get(name):
            return name, Path(value)
    return "certifi", Path(certifi.where())


def _certificates(name: str, path: Path) -> list[str]:
    """Return the certificates in a file, or in the files of a folder; raise SettingsError if it has none."""
    try:
        files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
        found = [one for file in files for one in _CERTIFICATE.findall(file.read_text("ascii", "replace"))]
    except OSError as error:
        raise SettingsError(f"{name}: {path} cannot be read: {error.strerror}.") from error
    if not found:
        raise SettingsError(f"{name}: {path} has no certificate in PEM (-----BEGIN CERTIFICATE-----).")
    return found


def _context(
    name: str, path: Path, certificates: list[str], *, to: ssl.SSLContext | None = None
) -> ssl.SSLContext:
    """Return a context that trusts certificates, or add them `to` one; raise SettingsError at a bad one."""
    text = "\n".join(certificates)
    try:
        if to is None:
            return ssl.create_default_context(cadata=text)
        to.load_verify_locations(cadata=text)
    except ssl.SSLError as error:
        raise SettingsError(f"{name}: a certificate in {path} is damaged.") from error
    return to


def _file(text: str) -> str:
    """Keep the certificates in a temporary file until the process ends."""
    kept = NamedTemporaryFile("w", encoding="ascii", prefix="darkroom-ca-", suffix=".pem")  # noqa: SIM115
    atexit.register(kept.close)
    kept.write(text)
    kept.flush()
    return kept.name
