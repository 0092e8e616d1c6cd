"""Sign callbacks, by the gateways' own documents. Nothing here is shared with what verifies them."""

import base64
import hashlib
import hmac


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


def secret_of(api_key: str) -> bytes:
    """Return 32 bytes of which the secret for an account's callbacks is made; the real gateway shows one."""
    return hashlib.sha256(f"sandbox webhook secret of {api_key}".encode()).digest()
