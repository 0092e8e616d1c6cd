"""This installation's secrets: which there are, and its own keys, made once and kept in the data folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from receiver.errors import SettingsError
from receiver.settings import Settings

FILE = "secret-key"


def secret_keys(settings: Settings) -> list[str]:
    """The keys that sign callback URLs, oldest first. Raises SettingsError if the kept one cannot be used."""
    return [key.get_secret_value() for key in settings.secret_keys] or [_kept(settings.data_dir)]


def every_secret(model: BaseModel) -> Iterator[str]:
    """List every secret among the settings; of an API token and a URL also the secret part alone."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from every_secret(value)
        for secret in value if isinstance(value, list) else [value]:
            if isinstance(secret, SecretStr):
                text = secret.get_secret_value()
                yield text
                yield text.split(":", 2)[-1]
                yield _password(text)


def _password(text: str) -> str:
    try:
        return urlsplit(text).password or text
    except ValueError:
        return text


def _kept(folder: Path) -> str:
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _make(path)
        key = path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"DARKROOM_DATA_DIR: {path} cannot be used: {error.strerror}.") from error
    if len(key) < 16:
        raise SettingsError(f"{path} holds no key; delete it, and a new one is made.")
    return key


def _make(path: Path) -> None:
    """Make the file once, whole or not at all, readable by its owner only."""
    if path.exists():
        return
    # Not named by a process id: in two containers that share the folder, both may be process 1.
    draft = path.with_name(f".{FILE}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        # A link, not a rename: of two processes that start together, the first one's key must stand.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
