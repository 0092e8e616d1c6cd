"""Read the API token of the commands that ask a service."""

import os

TOKEN, TOKEN_FILE = "DARKROOM_TOKEN", "DARKROOM_TOKEN_FILE"


def api_token(given: str | None) -> str | None:
    """Return the token: as given by option or variable, or from the file of DARKROOM_TOKEN_FILE.

    Raises ValueError if both variables are set, or the file cannot be used.
    """
    path = os.environ.get(TOKEN_FILE)
    if not path:
        return given
    if os.environ.get(TOKEN):
        raise ValueError(f"{TOKEN_FILE}: {TOKEN} is set too; set one of the two")
    if given:
        return given
    # Here, because most commands need no settings.
    from receiver.settings_sources import read_secret_file

    try:
        return read_secret_file(path)
    except ValueError as error:
        raise ValueError(f"{TOKEN_FILE}: {error}") from None
