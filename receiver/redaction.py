"""Take out of text what must not be kept: secrets, live callback tokens, and the queries of links."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

MASK = "[removed]"
_TOKEN = re.compile(r"(/callbacks/[\w.-]{1,64}/)[^\s\"'/?#]+")
# Cut by hand below: a pattern that looked for the question mark itself would be slow on hostile text.
_LINK = re.compile(r"https?:[^\s\"']+")
_SECRET_FIELD = re.compile(
    r"(api[-_]?key|secret|authorization|password|access[-_]?token|webhook[-_]?secret)$", re.IGNORECASE
)


class Redactor:
    """Knows this installation's secrets, and takes them out of whatever is stored or logged."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first, so that a secret that begins with another one goes whole.
        known = sorted({secret for secret in secrets if len(secret) >= 6}, key=len, reverse=True)
        forms = [form for secret in known for form in dict.fromkeys((secret, quote(secret, safe="")))]
        self._secrets = re.compile("|".join(map(re.escape, forms))) if forms else None

    def __repr__(self) -> str:
        return "Redactor()"

    def secrets(self, text: str) -> str:
        """Take out secrets and callback tokens, and leave the rest as it is."""
        text = _TOKEN.sub(rf"\1{MASK}", text)
        return self._secrets.sub(MASK, text) if self._secrets else text

    def text(self, text: str) -> str:
        """Take out secrets, callback tokens and the queries of links."""
        return _LINK.sub(lambda link: _without_query(link[0]), self.secrets(text))

    def body(self, raw: bytes) -> bytes:
        """Take secrets and callback tokens out of a callback's body; byte for byte itself if it has none."""
        text = raw.decode("utf-8", "surrogateescape")
        return self.secrets(text.replace("\\/", "/") if "callbacks\\/" in text else text).encode(
            "utf-8", "surrogateescape"
        )

    def value(self, value: Any) -> Any:
        """Do the same as `text` in every text of a JSON value, and mask fields that are named as secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(str(name)): MASK if item and _SECRET_FIELD.search(str(name)) else self.value(item)
                for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value


def _without_query(link: str) -> str:
    address, mark, query = link.partition("?")
    return address + mark + MASK if query else link
