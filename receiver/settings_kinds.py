"""The kinds of values that settings have, beyond plain texts and numbers, each with what is checked of it."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from receiver.access import Access
from storage.keys import Keys


def _listed(value: object) -> object:
    # `a,b` in the environment means two values, and an empty text none; a list stays a list.
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",")] if value.strip() else []


def _texts(values: list[str]) -> list[str]:
    return [value for value in values if value]


def _networks(values: list[str]) -> list[str]:
    for value in values:
        ipaddress.ip_network(value)
    return values


def _secret(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("is empty: set it, or leave it out")
    return value


def _secrets(values: list[SecretStr]) -> list[SecretStr]:
    texts = [value.get_secret_value().strip() for value in values]
    if not all(texts):
        raise ValueError("one of them is empty: take out the comma, or put in what is missing")
    if len(set(texts)) < len(texts):
        raise ValueError("one of them is there twice")
    return values


def _keys(values: list[SecretStr]) -> list[SecretStr]:
    if any(len(value.get_secret_value()) < 16 for value in values):
        raise ValueError("each key must have 16 characters or more")
    return values


def _tokens(values: list[SecretStr]) -> list[SecretStr]:
    Access(value.get_secret_value() for value in values)
    return values


def _base_url(value: str) -> str:
    scheme, _, rest = value.rstrip("/").partition("://")
    if scheme not in {"http", "https"} or not rest or any(sign in rest for sign in " ?#@"):
        raise ValueError("must be http:// or https:// and a host, without credentials, query or fragment")
    return value.rstrip("/")


def _origin(value: str) -> str:
    if "/" in _base_url(value).partition("://")[2]:
        raise ValueError("must end with the host or port, without a path")
    return _base_url(value)


def _template(value: str) -> str:
    Keys(template=value)
    return value


def _prefix(value: str) -> str:
    Keys(prefix=value)
    return value


Networks = Annotated[
    list[str], NoDecode, BeforeValidator(_listed), AfterValidator(_texts), AfterValidator(_networks)
]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
Secrets = Annotated[list[SecretStr], NoDecode, BeforeValidator(_listed), AfterValidator(_secrets)]
"""None of them may be empty or there twice."""
SigningKeys = Annotated[Secrets, AfterValidator(_keys)]
ApiTokens = Annotated[Secrets, AfterValidator(_tokens)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Origin = Annotated[str, AfterValidator(_origin)]
KeyTemplate = Annotated[str, AfterValidator(_template)]
KeyPrefix = Annotated[str, AfterValidator(_prefix)]
