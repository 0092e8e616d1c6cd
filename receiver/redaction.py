r"""Redact secrets, live callback tokens and the queries of links in text and JSON.

Known secrets and our own tokens are found in every spelling that JSON and URLs have for their characters,
also in JSON within JSON. Other secrets, such as the webhook key of a gateway, are found by the names of
their fields. A secret that was split, compressed or encrypted on purpose is not found.

With the secret `s3cr/t`, `Redactor.text` does this:

    https://cdn.example/a.png?X-Amz-Signature=0a1b      https://cdn.example/a.png?[removed]
    key s3cr/t, key s3cr%2Ft, key s3cr\u002ft           key [removed], key [removed], key [removed]
    {"webhook_token": "anything"}                       {"webhook_token": "[removed]"}
    /callbacks/apiframe/WyJhcGlm.aV.Zx                  /callbacks/apiframe/[removed]

The second line: `_plainly` spells each character of the text in its shortest way, where a plain search finds
the secret; `_any_spelling` makes a pattern of all its spellings, which are masked in the text as it is.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from itsdangerous.encoding import base64_decode
from itsdangerous.exc import BadData

MASK = "[removed]"

SHORT = 100
"""The results for texts of no more characters are cached."""

# All repetitions are bounded and every pattern begins with what is seldom, so that hostile text costs little.
_SLASH = r"(?:\\{0,8}/|%(?:25){0,4}2[Ff]|\\{1,8}u002[Ff])"
# A character as URLs and JSON may spell it, one within the other.
_SPELLED = re.compile(
    r"[%\\](?:(?:(?<=%)(?:25){0,4}|(?<=\\)\\{0,7}u00)([2-7][0-9A-Fa-f])|(?<=\\)\\{0,7}([^\w\\]?))"
)
# In JSON: a character that needs no escape, and an escape that must stay, so that nothing is read amiss.
_ESCAPE = re.compile(r"\\(?:(/)|u00([2-7][0-9A-Fa-f])|.)", re.DOTALL)

# Our tokens, wherever they stand: they begin as the base64 of `["`; what is in them decides.
_TOKEN = re.compile(
    r"(Wy(?:(?<![\w-]Wy)|(?<=%[0-9A-Fa-f]{2}Wy)|(?<=%25[0-9A-Fa-f]{2}Wy)|(?<=u00[0-9A-Fa-f]{2}Wy))"
    r"[IJ][\w-]{8,400})\.[\w-]{4,12}\.[\w-]{20,64}",
    re.ASCII,
)
_TOKEN_PAYLOAD = re.compile(rb'\["[\w.-]{1,64}","[\w-]{1,64}"\]')
# Whatever else stands in their place, for what is left of a token that was cut or changed.
_PLACE = re.compile(
    rf"([Cc][Aa][Ll][Ll][Bb][Aa][Cc][Kk][Ss]{_SLASH}[\w.-]{{1,64}}{_SLASH})"
    r"(?:[^\s\"'/?#\\%]|%(?!(?:25){0,4}(?:2[Ff]|3[Ff]|23|22|20)))+"
)
# Cut by hand below: a pattern that looked for the question mark itself would be slow on hostile text.
_LINK = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?(?::|%(?:25){0,4}3[Aa])[^\s\"']+")
_QUERY = re.compile(r"\?|%(?:25){0,4}3[Ff]|\\{1,8}u003[Ff]")

_SECRET_FIELD = re.compile(
    r"(?:(?:api|access|private|secret|signing|hmac)[-_ ]?key|secrets?|authorization|password|passphrase"
    r"|credentials?|cookie|(?:access|auth|bearer|refresh|session|security|id|api|webhook)[-_ ]?token)$"
    r"|^token$",
    re.IGNORECASE,
)
# `key` names an object's place as often as a secret; letters and digits in one piece are the latter.
_LOOKS_LIKE_KEY = re.compile(r"(?=[A-Za-z_-]{0,256}[0-9])[\w-]{16,256}", re.ASCII)
_SIGNS = re.compile(r"sig|key|token|.*signature", re.IGNORECASE)
_FIELD = re.compile(r'("([^"\\]{0,64})"\s{0,8}:\s{0,8}\[?\s{0,8}")((?:[^"\\]|\\.)+)', re.DOTALL)
_INNER_FIELD = re.compile(r'((?<!\\)\\{1,8}"([^"\\]{0,64})(\\{1,8}")\s{0,8}:\s{0,8}\3)([^"\\]+)')
_BEARER = re.compile(
    r"\b([Bb][Ee][Aa][Rr][Ee][Rr](?:\s|%20|\+){1,8})(?=[A-Za-z._~+/=-]{0,256}[0-9])[\w.~+/=-]{16,}"
)
_PARAMETER = re.compile(r"((?<![\w-])([\w-]{1,64})=)([^\s\"'&;,]{6,})")


_HINTS = (
    *("key", "secret", "authorization", "password", "passphrase", "credential", "cookie", "token"),
    *("bearer", "callbacks", "wyi", "wyj"),
)
"""Without one of them, in any case, no pattern above finds a secret: `_SECRET_FIELD`, `_BEARER`, `_PLACE` and
`_TOKEN` begin with them or have them within."""
_LINK_HINTS = ("http", "sig")
"""The same for links, and for `_PARAMETER`."""


def _is_bare(text: str, hints: Iterable[str]) -> bool:
    """Return whether a cheap look finds nothing that could be a secret: most texts have nothing.

    A text outside ASCII, of which more letters match a pattern in any case, needs the closer look, and so
    does one with characters that have several spellings.
    """
    if "\\" in text or "%" in text or not text.isascii():
        return False
    lower = text.lower()
    for hint in hints:  # noqa: SIM110 - as fast as can be
        if hint in lower:
            return False
    return True


class Redactor:
    """Redacts the secrets of this installation in what is stored or logged. Thread-safe."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= 6}
        # Outside ASCII a secret may stand as UTF-8 in a URL or as code points in JSON: other characters.
        forms = {
            form for secret in known for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1])
        }
        plain = {form for form in map(_plainly, forms) if len(form) >= 6}
        # The longest first, so that a secret that begins with another one goes whole.
        self._secrets = sorted(plain, key=lambda form: (-len(form), form))
        # Looked for as they are too: the end of one may, with what follows, read as another character.
        # With a quote or a backslash in it, it never stands so in JSON, and taking it out could break that.
        self._literally = sorted((s for s in known if not set(s) & {'"', "\\"}), key=len, reverse=True)

        self._hints = (*_HINTS, *{secret.lower() for secret in (*self._secrets, *self._literally)})
        self._link_hints = (*self._hints, *_LINK_HINTS)
        # The same few paths, headers and reasons recur.
        self._short = lru_cache(maxsize=512)(self._text)

    def secrets(self, text: str) -> str:
        """Redact secrets and callback tokens; return the rest as it is."""
        if _is_bare(text, self._hints):
            return text
        text = _PLACE.sub(rf"\1{MASK}", _TOKEN.sub(_without_token, text))
        text = _INNER_FIELD.sub(_without_secret, _FIELD.sub(_without_secret, text))
        text = _BEARER.sub(rf"\1{MASK}", text)
        plainly = _plainly(text)
        found = [secret for secret in self._secrets if secret in plainly]
        if plainly is not text:
            found += sorted({token[0] for token in _TOKEN.finditer(plainly) if _is_ours(token)})
        text = re.sub("|".join(map(_any_spelling, found)), MASK, text) if found else text
        for secret in self._literally:
            text = text.replace(secret, MASK)
        return text

    def text(self, text: str) -> str:
        """Redact secrets, callback tokens and the queries of links."""
        return self._short(text) if len(text) <= SHORT else self._text(text)

    def _text(self, text: str) -> str:
        if _is_bare(text, self._link_hints):
            return text
        text = _LINK.sub(lambda link: _without_query(link[0]), self.secrets(text))
        return _PARAMETER.sub(_without_secret, text)

    def body(self, raw: bytes) -> bytes:
        """Redact secrets and callback tokens in a callback's body; return the same bytes if it has none.

        JSON stays JSON. Links keep their queries: the images are still to be fetched. Of a list in a field
        named as a secret only the first text is seen, of an object in one only what is named so itself.
        """
        text = raw.decode("utf-8", "surrogateescape")
        bare = _ESCAPE.sub(_unescaped, text) if "\\/" in text or "\\u00" in text else text
        kept = self.secrets(bare)
        return raw if kept == bare else kept.encode("utf-8", "surrogateescape")

    def value(self, value: Any) -> Any:
        """Redact every text of a JSON value as `text` does, and mask the fields that are named as secrets.

        What JSON has no word for, such as an exception, becomes text.
        """
        if isinstance(value, str):
            return self.text(str(value))
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {self.text(str(name)): self._field(str(name), item) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item) for item in value]
        return self.text(
            self.body(value).decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        )

    def _field(self, name: str, item: Any) -> Any:
        return MASK if _is_secret(name, item) else self.value(item)


def _is_secret(name: str, item: Any) -> bool:
    if not item or isinstance(item, bool):
        return False
    if name.lower() == "key":
        return isinstance(item, str) and _LOOKS_LIKE_KEY.fullmatch(item) is not None
    return _named_as_secret(name) if len(name) <= SHORT else _SECRET_FIELD.search(name) is not None


@lru_cache(maxsize=512)
def _named_as_secret(name: str) -> bool:
    return _SECRET_FIELD.search(name) is not None


def _without_secret(found: re.Match[str]) -> str:
    """Mask a value by its name: the value is the last group, the name the second."""
    name, value = found[2], found[found.re.groups]
    parameter = found.re is _PARAMETER and _SIGNS.fullmatch(name)
    return found[1] + MASK if parameter or _is_secret(name, value) else found[0]


def _plainly(text: str) -> str:
    """Spell every character in its shortest way; only to look for something, for two texts may become one."""
    if "\\" not in text and "%" not in text:
        return text
    return _SPELLED.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2] or "\\", text)


def _any_spelling(plain: str) -> str:
    """Return a pattern for a text in any spelling that `_plainly` would bring to this one."""
    return "".join(map(_any_spelling_of, plain))


def _any_spelling_of(character: str) -> str:
    code = ord(character)
    spelled = rf"(?:%(?:25){{0,4}}|\\{{1,8}}u00)(?i:{code:02x})|" if 0x20 <= code <= 0x7F else ""
    if character == "\\":
        bare = r"\\{1,8}"
    elif character.isalnum() or character == "_":
        bare = re.escape(character)
    else:
        bare = rf"\\{{0,8}}{re.escape(character)}"
    return f"(?:{spelled}{bare})"


def _unescaped(escape: re.Match[str]) -> str:
    character = escape[1] or (chr(int(escape[2], 16)) if escape[2] else "")
    return character if character and character not in '"\\\x7f' else escape[0]


def _is_ours(token: re.Match[str]) -> bool:
    try:
        return _TOKEN_PAYLOAD.fullmatch(base64_decode(token[1])) is not None
    except BadData:
        return False


def _without_token(token: re.Match[str]) -> str:
    return MASK if _is_ours(token) else token[0]


def _without_query(link: str) -> str:
    mark = _QUERY.search(link)
    return link if mark is None or mark.end() == len(link) else link[: mark.end()] + MASK
