"""Verify and create webhook signatures: the schemes of the gateways, and our own. The time is passed in.

HMAC-SHA256, Ed25519 by published keys, and verbatim secrets.

Standard Webhooks is written out here, not left to the package `standardwebhooks`: that reads the clock
itself, rejects an old timestamp before it looks at the signature, knows one secret at a time, drops
what is not base64 from a secret, and raises other errors than its own at hostile input.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from receiver.errors import BadSignature, SettingsError

MOST_HEADER = 4096
"""The longest signature header in characters: room for dozens of signatures."""

MOST_KEYS = 32
"""How many public keys of a sender are tried."""

_SECONDS = re.compile(r"[0-9]{1,15}")
# Printable ASCII without the full stop: with one in it, an id could be cut elsewhere than it was signed.
# https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
_MESSAGE_ID = re.compile(r"[!-\-/-~]{1,256}")
_ID_IN_LINES = re.compile(r"[!-~]{1,256}")
"""Where lines are signed, only a line end would do that."""


def _text(secret: str) -> bytes:
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ValueError("has spaces or other characters that no secret has")
    return secret.encode("ascii")


def _text_after_whsec(secret: str) -> bytes:
    return _text(secret.removeprefix("whsec_"))


def _base64_after_whsec(secret: str) -> bytes:
    if secret.startswith(("whsk_", "whpk_")):
        raise ValueError("is half of a key pair, where a secret that begins with whsec_ is needed")
    text = _text_after_whsec(secret).rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ValueError("is not base64 after whsec_") from None


def _apiframe_keys(secret: bytes) -> tuple[bytes, ...]:
    # Apiframe's own SDK takes the raw digest, a client in use its hex text; both count.
    digest = hashlib.sha256(secret)
    return digest.digest(), digest.hexdigest().encode("ascii")


def _freepik_keys(secret: bytes) -> tuple[bytes, ...]:
    # Freepik's documents take the text as it is, others decode it; both count.
    try:
        return secret, base64.b64decode(secret.removeprefix(b"whsec_"), validate=True)
    except ValueError:
        return (secret,)


def _bria_keys(secret: bytes) -> tuple[bytes, ...]:
    return (hmac.digest(secret, b"bria-webhook-signing-v1", "sha256"),)


@dataclass(frozen=True, slots=True)
class Scheme:
    """How one kind of sender signs.

    `decode` reads a secret's text, or raises ValueError with the reason; `derive` makes the HMAC keys of it,
    one for each form in circulation. Header names and prefixes are in lower case.
    """

    name: str
    content: Literal["secret", "body", "ts.body", "id.ts.body", "task_id.ts"]
    """What is signed; `secret`: nothing, the header holds the secret itself; `ts.body`: the body alone where
    the header with the time is missing."""
    header: str
    encoding: Literal["hex", "base64"] = "hex"
    prefixes: tuple[str, ...] = ("",)
    """Prefixes of a signature, in any case; the first that matches is removed."""
    separator: str | None = None
    """The separator of several signatures, if there can be several."""
    id_header: str = ""
    """The header with the id of the message; only if `content` names an id."""
    time_header: str = ""
    """The header with the time of sending, in seconds since 1970 UTC; only if `content` names `ts`."""
    tolerance_s: int = 300
    """How far that time may be from now, either way, before the signature is stale."""
    decode: Callable[[str], bytes] = _text
    derive: Callable[[bytes], tuple[bytes, ...]] | None = None
    least: int = 8
    """The fewest bytes of a secret, 1 at least; a shorter one was cut off."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A valid signature, and what it says."""

    key_index: int
    """Which of the secrets made it."""
    key_form: int
    """Which of that secret's keys: for Apiframe 0 is the raw digest and 1 its hex text, else always 0."""
    body_covered: bool
    """Whether it was made over the body; if not, it proves who sent, not what was sent."""
    timestamp: int | None = None
    """The signed time of sending, in seconds since 1970 UTC."""
    message_id: str | None = None
    """The signed id of the message, the same on each attempt."""
    stale: bool = False
    """Whether it was sent too long ago, or in the future: a late attempt, or a replay."""

    @property
    def proves_body(self) -> bool:
        """Return whether the body may be trusted without asking the gateway."""
        return self.body_covered and not self.stale


# Apiframe issues its keys, so that none is too short: https://docs-v2.apiframe.ai/docs/webhooks
APIFRAME_V2 = Scheme(
    "apiframe-v2", "body", "x-webhook-signature", prefixes=("sha256=", ""), derive=_apiframe_keys, least=1
)
BFL = Scheme("bfl", "body", "x-bfl-signature", prefixes=("sha256=",))  # https://docs.bfl.ai
# Replicate, OpenAI, Higgsfield: https://www.standardwebhooks.com
STANDARD = Scheme(
    "standard", "id.ts.body", "webhook-signature", "base64", ("v1,",), " ",
    id_header="webhook-id", time_header="webhook-timestamp", decode=_base64_after_whsec, least=24,
)  # fmt: skip
# Now Magnific: https://docs.freepik.com/webhooks
FREEPIK = replace(STANDARD, name="freepik", decode=_text, derive=_freepik_keys, least=8)
# https://wavespeed.ai/docs/verify-webhooks
WAVESPEED = replace(
    STANDARD, name="wavespeed", encoding="hex", prefixes=("v3,",), decode=_text_after_whsec, least=8
)
# https://docs.legnext.ai
LEGNEXT = Scheme("legnext", "ts.body", "x-legnext-signature", time_header="x-legnext-timestamp")
# https://docs.bria.ai/webhooks
BRIA = Scheme(
    "bria", "id.ts.body", "bria-webhook-signature", "base64", ("v1=",), ",",
    id_header="bria-webhook-id", time_header="bria-webhook-timestamp", derive=_bria_keys,
)  # fmt: skip
# https://docs.kie.ai/common-api/webhook-verification
KIE = Scheme("kie", "task_id.ts", "x-webhook-signature", "base64", time_header="x-webhook-timestamp")
APIFRAME_V1 = Scheme("apiframe-v1", "secret", "x-webhook-secret", least=16)
PIAPI = replace(APIFRAME_V1, name="piapi")  # https://piapi.ai/docs
# https://docs.leonardo.ai
LEONARDO = Scheme("leonardo", "secret", "authorization", prefixes=("bearer ",), least=16)

_HASHED = (APIFRAME_V2, BFL, STANDARD, FREEPIK, WAVESPEED, BRIA, KIE, LEGNEXT)
SCHEMES: Mapping[str, Scheme] = {scheme.name: scheme for scheme in (*_HASHED, APIFRAME_V1, PIAPI, LEONARDO)}


def _keys(scheme: Scheme, secret: str, setting: str = "") -> tuple[bytes, ...]:
    try:
        decoded = scheme.decode(secret)
    except ValueError as error:
        problem = str(error)
    else:
        if len(decoded) >= scheme.least:
            return scheme.derive(decoded) if scheme.derive else (decoded,)
        problem = f"is too short: it must have {scheme.least} bytes or more"
    raise SettingsError(f"{setting or f'The secret for {scheme.name}'} {problem}.")


def _given(scheme: Scheme, header: str) -> list[bytes]:
    """Return digests of the signatures in a header; skip those of other versions."""
    entries = header[:MOST_HEADER].split(scheme.separator) if scheme.separator else [header]
    found = [_without_prefix(scheme, entry.strip(" \t")) for entry in entries]
    if len(header) > MOST_HEADER or not any(found):
        raise BadSignature(f"The header {scheme.header} holds no signature that {scheme.name} would make.")
    return [_comparable(scheme, signature) for signature in found if signature]


def _without_prefix(scheme: Scheme, entry: str) -> str:
    return next((entry[len(p) :] for p in scheme.prefixes if entry[: len(p)].lower() == p), "")


def _comparable(scheme: Scheme, signature: str) -> bytes:
    text = signature.lower() if scheme.content != "secret" and scheme.encoding == "hex" else signature
    plain = text.encode("utf-8", "surrogatepass")
    # Secrets are compared by their digests, so that not even the length of one shows.
    return hashlib.sha256(plain).digest() if scheme.content == "secret" else plain


def _signed_header(headers: Mapping[str, str], name: str, shape: re.Pattern[str]) -> str:
    value = headers.get(name, "").strip(" \t") if name else ""
    if name and not shape.fullmatch(value):
        raise BadSignature(f"The callback is signed, but its header {name} is missing or malformed.")
    return value


def _content(scheme: Scheme, message_id: str, sent_at: str, task_id: str | None, body: bytes) -> bytes:
    if scheme.content == "id.ts.body":
        return b".".join((message_id.encode("ascii"), sent_at.encode("ascii"), body))
    if scheme.content == "ts.body" and sent_at:
        return b".".join((sent_at.encode("ascii"), body))
    if scheme.content == "task_id.ts":
        if not task_id:
            raise BadSignature("The callback names no task, and its signature is made over the task's id.")
        return f"{task_id}.{sent_at}".encode("utf-8", "surrogatepass")
    return body


def _expecting(scheme: Scheme, key: bytes) -> Callable[[bytes], bytes]:
    """Return a function from some content to what a key makes of it, to be compared with what came."""
    if scheme.content == "secret":
        fixed = _comparable(scheme, key.decode("ascii"))
        return lambda _content: fixed
    keyed = hmac.new(key, digestmod="sha256")

    def expected(content: bytes) -> bytes:
        # Not `hmac.digest`: it gives the interpreter's lock away, and to get that back takes longer.
        mac = keyed.copy()
        mac.update(content)
        if scheme.encoding == "hex":
            return mac.hexdigest().encode("ascii")
        return base64.b64encode(mac.digest())

    return expected


@dataclass(frozen=True, slots=True)
class KeyScheme:
    """How a sender signs with an Ed25519 key, whose public half it publishes.

    Signed are four lines: two ids and the time, each in its header, and the SHA-256 of the body in hex.
    """

    name: str
    header: str
    """The signature, in hex."""
    id_headers: tuple[str, str]
    """The ids of the message and of its user."""
    time_header: str
    tolerance_s: int = 300
    """How far that time may be from now, either way, before the signature is stale."""

    def verify(
        self, headers: Mapping[str, str], body: bytes, now_s: float, keys: Sequence[bytes]
    ) -> Signed | None:
        """Verify a callback's signature by any of the keys; return None if it has none.

        Raises BadSignature if it is malformed or does not fit, and nothing else, whatever comes in.
        """
        given = headers.get(self.header)
        if given is None:
            return None
        if not re.fullmatch(r"[0-9A-Fa-f]{128}", given.strip(" \t")):
            raise BadSignature(f"The header {self.header} holds no Ed25519 signature in hex.")
        ids = [_signed_header(headers, name, _ID_IN_LINES) for name in self.id_headers]
        sent_at = _signed_header(headers, self.time_header, _SECONDS)
        lines = "\n".join((*ids, sent_at, hashlib.sha256(body).hexdigest())).encode("ascii")
        for index, key in enumerate(keys):
            if _ed25519_fits(key, bytes.fromhex(given.strip(" \t")), lines):
                stale = not abs(now_s - int(sent_at)) <= self.tolerance_s
                return Signed(index, 0, True, int(sent_at), ids[0], stale)  # noqa: FBT003 - it covers the body
        raise BadSignature(f"The signature in {self.header} does not fit the callback.")


# https://fal.ai/docs/documentation/model-apis/inference/webhooks
FAL = KeyScheme(
    "fal",
    "x-fal-webhook-signature",
    ("x-fal-webhook-request-id", "x-fal-webhook-user-id"),
    "x-fal-webhook-timestamp",
)
# https://developer.ideogram.ai/ideogram-api/webhooks
IDEOGRAM = KeyScheme(
    "ideogram",
    "x-ideogram-webhook-signature",
    ("x-ideogram-webhook-generation-id", "x-ideogram-webhook-user-id"),
    "x-ideogram-webhook-timestamp",
)
KEY_SCHEMES: Mapping[str, KeyScheme] = {scheme.name: scheme for scheme in (FAL, IDEOGRAM)}


def public_keys(jwks: Mapping[str, object]) -> tuple[bytes, ...]:
    """Return the Ed25519 keys of a JWKS document, at most `MOST_KEYS`; others are skipped.

    https://www.rfc-editor.org/rfc/rfc7517 and https://www.rfc-editor.org/rfc/rfc8037
    """
    listed = jwks.get("keys")
    keys = (_public_key(one) for one in (listed if isinstance(listed, list) else ())[:MOST_KEYS])
    return tuple(key for key in keys if key is not None)


def _public_key(jwk: object) -> bytes | None:
    x = jwk.get("x") if isinstance(jwk, dict) and jwk.get("crv", "Ed25519") == "Ed25519" else None
    if not isinstance(x, str) or not re.fullmatch(r"[A-Za-z0-9_-]{43}=?", x):
        return None
    key = base64.urlsafe_b64decode(x.rstrip("=") + "=")
    return key if len(key) == 32 else None


def _ed25519_fits(key: bytes, signature: bytes, content: bytes) -> bool:
    # Imported here, because it takes long, and only few gateways sign so.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def check_secret(scheme: Scheme, secret: str, *, setting: str = "") -> None:
    """Raise SettingsError, which names `setting` and never shows the secret, if it could not verify.

    For each secret as the service starts: one that is cut short or cannot be decoded would refuse everything.
    """
    _keys(scheme, secret, setting)


class Verifier:
    """Verifies what one sender signs, by any of its secrets, so that keys can be changed meanwhile.

    Every key is derived once. Raises SettingsError for a secret that `check_secret` refuses.
    """

    def __init__(self, scheme: Scheme, secrets: Sequence[str]) -> None:
        if isinstance(secrets, str):
            raise TypeError("secrets must be a list: each letter of a text would count as a secret")
        self._scheme = scheme
        self._expecting = [
            (index, form, _expecting(scheme, key))
            for index, secret in enumerate(secrets)
            for form, key in enumerate(_keys(scheme, secret))
        ]

    def verify(
        self, headers: Mapping[str, str], body: bytes, now_s: float, *, task_id: str | None = None
    ) -> Signed | None:
        """Verify a callback's signature; return None if it has none. Header names are in lower case.

        `now_s` is in seconds since 1970 UTC. A true signature that is too old, or from the future, is
        answered with `stale`, not refused: some senders date a late attempt like the first, and the gateway
        can be asked instead. `task_id` is the one in the body, for schemes that sign it.

        Raises BadSignature if it is malformed or does not fit, and nothing else, whatever comes in.
        """
        scheme = self._scheme
        header = headers.get(scheme.header)
        if header is None:
            return None
        given = _given(scheme, header)
        message_id = _signed_header(headers, scheme.id_header, _MESSAGE_ID)
        dated = scheme.content != "ts.body" or scheme.time_header in headers
        sent_at = _signed_header(headers, scheme.time_header if dated else "", _SECONDS)
        content = _content(scheme, message_id, sent_at, task_id, body)
        expected = [(index, form, ours(content)) for index, form, ours in self._expecting]
        # Every key meets every signature, so that the time taken does not tell which of them fit.
        fits = [
            (index, form) for index, form, ours in expected for it in given if hmac.compare_digest(ours, it)
        ]
        if not fits:
            raise BadSignature(f"The signature in {scheme.header} does not fit the callback.")
        return Signed(
            *fits[0],
            body_covered=scheme.content in {"body", "ts.body", "id.ts.body"},
            timestamp=int(sent_at) if sent_at else None,
            message_id=message_id or None,
            stale=bool(sent_at) and not abs(now_s - int(sent_at)) <= scheme.tolerance_s,
        )


def sign(secrets: Sequence[str], message_id: str, sent_at_s: int, body: bytes) -> dict[str, str]:
    """Return the headers of a Standard Webhooks message, signed with each of the secrets.

    So a receiver that knows any of them can verify it, while one secret takes another's place. `sent_at_s` is
    when this very attempt is made, in seconds since 1970 UTC.
    """
    sent_at = str(sent_at_s)
    content = _content(STANDARD, message_id, sent_at, None, body)
    macs = [hmac.digest(key, content, "sha256") for secret in secrets for key in _keys(STANDARD, secret)]
    signatures = " ".join(f"v1,{base64.b64encode(mac).decode('ascii')}" for mac in macs)
    return {STANDARD.id_header: message_id, STANDARD.time_header: sent_at, STANDARD.header: signatures}
