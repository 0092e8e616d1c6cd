"""Types of settings: parse and validate networks, secrets, tokens, URLs and key templates."""

import base64
import ipaddress
import re
from collections.abc import Iterable
from typing import Annotated, NamedTuple
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, SecretStr
from pydantic_settings import NoDecode

from storage.archive.keys import Keys

SCOPES = ("read", "submit", "admin")


class Group(BaseModel):
    """A group of settings under one prefix; an unknown name in it is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)


def _listed(value: object) -> object:
    # `a,b` in the environment means two values, and an empty text none; in a file each may have a line.
    if not isinstance(value, str):
        return value
    return [part.strip() for part in re.split(r"[,\n]", value)] if value.strip() else []


def _texts(values: list[str]) -> list[str]:
    return [value for value in values if value]


def _networks(values: list[str]) -> list[str]:
    for value in values:
        ipaddress.ip_network(value)
    return values


def _hosts(values: list[str]) -> list[str]:
    for value in values:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,253}", value):
            raise ValueError("must be host names, without scheme, port or path")
    return values


def _secret(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("is empty: set it or remove it")
    return value


def _secrets(values: list[SecretStr]) -> list[SecretStr]:
    texts = [value.get_secret_value().strip() for value in values]
    if not all(texts):
        raise ValueError("one of them is empty: remove the comma or add the missing value")
    if len(set(texts)) < len(texts):
        raise ValueError("one of them is given twice")
    return values


def _keys(values: list[SecretStr]) -> list[SecretStr]:
    if any(len(value.get_secret_value()) < 16 for value in values):
        raise ValueError("each key needs at least 16 characters")
    return values


def _webhook_secrets(values: list[SecretStr]) -> list[SecretStr]:
    # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    for value in values:
        mark, _, text = value.get_secret_value().partition("_")
        try:
            length = len(base64.b64decode(text, validate=True))
        except ValueError:
            length = 0
        if mark != "whsec" or not 24 <= length <= 64:
            raise ValueError("each must be whsec_ and the base64 of 24 to 64 random bytes, with its padding")
    return values


class ApiToken(NamedTuple):
    """One value of DARKROOM_API_TOKENS: `name:scope:secret`."""

    name: str
    scope: str
    secret: str


def read_api_tokens(texts: Iterable[str]) -> list[ApiToken]:
    """Parse API tokens; raise ValueError that says what is wrong with one, without its secret."""
    tokens = [_api_token(text) for text in texts]
    names, secrets = [token.name for token in tokens], [token.secret for token in tokens]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the name {twice} is used twice; give each token its own name")
    if twice := next((token.name for token in tokens if secrets.count(token.secret) > 1), None):
        raise ValueError(f"the token of {twice} is used twice; give each name its own token")
    return tokens


def _api_token(text: str) -> ApiToken:
    name, _, rest = text.partition(":")
    scope, _, secret = rest.partition(":")
    if not name or scope not in SCOPES:
        raise ValueError("each must be name:scope:token, scope read, submit or admin")
    if len(secret) < 16:
        raise ValueError(f"the token of {name} is too short; use 16 characters or more")
    if not re.fullmatch(r"[!-~]+", secret):
        raise ValueError(f"the token of {name} has characters that a header cannot carry; use ASCII letters")
    return ApiToken(name, scope, secret)


def _tokens(values: list[SecretStr]) -> list[SecretStr]:
    read_api_tokens(value.get_secret_value() for value in values)
    return values


def _parses(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _base_url(value: str) -> str:
    scheme, _, rest = value.rstrip("/").partition("://")
    if scheme not in {"http", "https"} or not rest or any(sign in rest for sign in " ?#@"):
        raise ValueError("must be http:// or https:// and a host, without credentials, query or fragment")
    if not _parses(value):
        raise ValueError("must have a valid host, and a port of 65535 at most")
    return value.rstrip("/")


def _path_prefix(value: str) -> str:
    path = value.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._~/-]*", path):
        raise ValueError("must be a path, such as /photos, of letters, digits, dots, dashes and underscores")
    return f"/{path}" if path else ""


def _origin(value: str) -> str:
    if "/" in value.partition("://")[2]:
        raise ValueError("must end with the host or port, without a path")
    return value


def _exact_origin(value: str) -> str:
    url = _origin(_base_url(value)).lower()
    if not re.fullmatch(r"https?://[a-z0-9.:\[\]-]+", url):
        raise ValueError("each must be an exact origin, such as https://app.example.com, without `*`")
    # A browser leaves out the usual port.
    return url.removesuffix(":443" if url.startswith("https:") else ":80")


def _direct(values: list[str]) -> list[str]:
    try:
        networks = [value for value in values if "/" in value or ":" in value]
        _networks(networks)
        _hosts([value for value in values if value not in networks])
    except ValueError:
        raise ValueError("must be host names, and networks such as 10.0.0.0/8 or fd00::/8") from None
    return values


def _proxy_url(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not _parses(text) or not text.isascii():
        raise ValueError("must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")
    url = urlsplit(text)
    if url.scheme != "http" or not url.hostname or url.path.strip("/") or url.query or url.fragment:
        raise ValueError("must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")
    if bool(url.username) != bool(url.password):
        raise ValueError("must have a user and a password, or neither")
    if not unquote(f"{url.username}{url.password}").isascii():
        raise ValueError("must have a user and a password in ASCII")
    return value


Texts = Annotated[list[str], NoDecode, BeforeValidator(_listed), AfterValidator(_texts)]
Networks = Annotated[Texts, AfterValidator(_networks)]
Hosts = Annotated[Texts, AfterValidator(_hosts)]
Origins = Annotated[Texts, AfterValidator(lambda values: [_exact_origin(value) for value in values])]
Direct = Annotated[Texts, AfterValidator(_direct)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
ProxyUrl = Annotated[SecretStr, AfterValidator(_proxy_url)]
Secrets = Annotated[list[SecretStr], NoDecode, BeforeValidator(_listed), AfterValidator(_secrets)]
"""None may be empty or given twice."""
SigningKeys = Annotated[Secrets, AfterValidator(_keys)]
WebhookSecrets = Annotated[Secrets, AfterValidator(_webhook_secrets)]
ApiTokens = Annotated[Secrets, AfterValidator(_tokens)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
PathPrefix = Annotated[str, AfterValidator(_path_prefix)]
Origin = Annotated[BaseUrl, AfterValidator(_origin)]
KeyTemplate = Annotated[str, AfterValidator(lambda value: Keys(template=value).template)]
KeyPrefix = Annotated[str, AfterValidator(lambda value: Keys(prefix=value).prefix)]
