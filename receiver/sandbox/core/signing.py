"""Sign callbacks, by the gateways' own documents. Nothing here is shared with what verifies them."""

import hashlib
import hmac


def mac(key: bytes, *parts: str | int | bytes) -> bytes:
    """Return the HMAC-SHA256 over parts joined by full stops."""
    content = b".".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)
    return hmac.new(key, content, hashlib.sha256).digest()
