"""Read the secrets of this installation; create its own keys once, in the data folder."""

import base64
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, SecretStr

from receiver.errors import SettingsError
from receiver.settings import Settings
from receiver.signatures import STANDARD, check_secret

FILE = "secret-key"
NOTIFY_FILE = "notify-secret"


def secret_keys(settings: Settings) -> list[str]:
    """Return the keys that sign callback URLs, oldest first; raise SettingsError if the file is unusable."""
    return [key.get_secret_value() for key in settings.secret_keys] or [
        _kept(settings.data_dir, FILE, lambda: secrets.token_urlsafe(32))
    ]


def notify_secrets(settings: Settings) -> list[str]:
    """Return the secrets that sign notifications, oldest first: those that are set, or the one in the file.

    With PostgreSQL only those that are set: each replica would create its own. Raises SettingsError if the
    file is unusable.
    """
    if settings.notify.secrets or settings.ledger_url.shared:
        return [secret.get_secret_value() for secret in settings.notify.secrets]
    kept = _kept(settings.data_dir, NOTIFY_FILE, new_webhook_secret)
    check_secret(STANDARD, kept, setting=f"The secret in {settings.data_dir / NOTIFY_FILE}")
    return [kept]


def new_webhook_secret() -> str:
    """Return a new secret in the format of the Standard Webhooks specification: 32 random bytes."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode('ascii')}"


def every_secret(model: BaseModel) -> Iterator[str]:
    """Yield every secret among the settings; of an API token and a URL also the secret part alone."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        for group in value.values() if isinstance(value, dict) else [value]:
            if isinstance(group, BaseModel):
                yield from every_secret(group)
        for secret in value if isinstance(value, list) else [value]:
            if isinstance(secret, SecretStr):
                text = secret.get_secret_value()
                yield text
                yield text.split(":", 2)[-1]
                yield from _passwords(text)


def _passwords(url: str) -> Iterator[str]:
    """Yield the passwords in a URL, as they are written there and as they are used."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    if parts.password:
        yield parts.password
        yield unquote(parts.password)
    yield from (value for name, value in parse_qsl(parts.query) if name in {"password", "sslpassword"})


def _kept(folder: Path, name: str, new: Callable[[], str]) -> str:
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _make(path, new)
        key = path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"DARKROOM_DATA_DIR: {path} cannot be used: {error.strerror}.") from error
    if len(key) < 16:
        raise SettingsError(f"{path} holds no key. Delete it, and a new one is created.")
    return key


def _make(path: Path, new: Callable[[], str]) -> None:
    """Create the file once, atomically, readable by its owner only."""
    if path.exists():
        return
    # Not named by a process id: in two containers that share the folder, both may be process 1.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(new() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        # A link, not a rename: of two processes that start together, the first one's key must stand.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
