"""Sign callbacks, by the gateways' own documents. Nothing here is shared with what verifies them."""

import base64
import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def mac(key: bytes, *parts: str | int | bytes) -> bytes:
    """Return the HMAC-SHA256 over parts joined by full stops."""
    content = b".".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)
    return hmac.new(key, content, hashlib.sha256).digest()


def base64_mac(key: bytes, *parts: str | int | bytes) -> str:
    """Return the same in base64."""
    return base64.b64encode(mac(key, *parts)).decode()


def standard(message_id: str, sent_at: int, signature: str) -> dict[str, str]:
    """Return the three headers of Standard Webhooks: https://www.standardwebhooks.com."""
    return {"webhook-id": message_id, "webhook-timestamp": str(sent_at), "webhook-signature": signature}


def whsec(api_key: str) -> str:
    """Return such a secret as text: base64 behind `whsec_`."""
    return f"whsec_{base64.b64encode(secret_of(api_key)).decode()}"


def secret_of(api_key: str) -> bytes:
    """Return 32 bytes of which the secret for an account's callbacks is made; the real gateway shows one."""
    return hashlib.sha256(f"sandbox webhook secret of {api_key}".encode()).digest()


def four_lines(key: bytes, first: str, second: str, sent_at: int, body: bytes) -> str:
    """Return an Ed25519 signature in hex, over two ids, the time and the body's SHA-256, a line each.

    As fal and Ideogram do: https://fal.ai/docs/documentation/model-apis/inference/webhooks.
    """
    lines = "\n".join((first, second, str(sent_at), hashlib.sha256(body).hexdigest()))
    return _ed25519(key).sign(lines.encode()).hex()


def jwk(key: bytes, **more: str) -> dict[str, str]:
    """Return the public half of an Ed25519 key: https://www.rfc-editor.org/rfc/rfc8037."""
    x = base64.urlsafe_b64encode(_ed25519(key).public_key().public_bytes_raw()).decode().rstrip("=")
    return {"kty": "OKP", "crv": "Ed25519", "x": x, **more}


def _ed25519(key: bytes) -> Ed25519PrivateKey:
    # A key that a fault has altered is longer.
    return Ed25519PrivateKey.from_private_bytes(key if len(key) == 32 else hashlib.sha256(key).digest())
