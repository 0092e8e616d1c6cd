"""Make the secrets of `compose.yaml`, once: each for the one service that reads it, and for nobody else.

Run as root in a container of its own, with a folder for each service, which are volumes. What is there stays.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from pathlib import Path

DARKROOM, POSTGRES, SEAWEEDFS = 10001, 999, 10002
"""Whom the containers run as, as numbers."""


def main(folder: Path) -> None:
    """Make the files in the folders under `folder`, those of Darkroom last: they say that all are there."""
    settings = folder / "darkroom" / ".env"
    if settings.exists():
        return
    password, access_key, secret_key = (
        secrets.token_urlsafe(32),
        secrets.token_hex(10),
        secrets.token_urlsafe(30),
    )
    identity = {
        "name": "darkroom",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin"],
    }
    api_token = secrets.token_urlsafe(32)
    lines = {
        "DARKROOM_DATABASE_URL": f"postgresql://darkroom:{password}@postgres/darkroom",
        "DARKROOM_SECRET_KEYS": secrets.token_urlsafe(32),
        "DARKROOM_NOTIFY__SECRETS": f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "DARKROOM_API_TOKENS": f"me:admin:{api_token}",
        "DARKROOM_S3__ACCESS_KEY": access_key,
        "DARKROOM_S3__SECRET_KEY": secret_key,
    }
    # Without these, SeaweedFS's inner servers would serve whoever reaches them.
    signing = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
    security = "".join(f'[{name}]\nkey = "{secrets.token_hex(32)}"\n' for name in signing)
    _give(folder / "archive", SEAWEEDFS)
    _write(folder / "postgres" / "password", password, POSTGRES)
    _write(folder / "seaweedfs" / "s3.json", json.dumps({"identities": [identity]}), SEAWEEDFS)
    _write(folder / "seaweedfs" / "security.toml", security, SEAWEEDFS)
    _write(folder / "darkroom" / "api-token", f"{api_token}\n", DARKROOM)
    _write(settings, "".join(f"{name}={value}\n" for name, value in lines.items()), DARKROOM)


def _write(path: Path, text: str, owner: int) -> None:
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _give(draft, owner)
    draft.replace(path)


def _give(path: Path, owner: int) -> None:
    if os.geteuid() == 0:
        os.chown(path, owner, owner)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
