"""Read the variables of the settings: secrets may be in files, and unknown names are found."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from receiver.errors import SettingsError

PREFIX = "DARKROOM_"
FILE = "_FILE"
"""What follows the name of a secret whose value is in a file."""
MAX_FILE_BYTES = 65536
NEVER_EMPTY = "DARKROOM_DATABASE_URL"
"""The one setting that does not count as unset if it is empty: the ledger would silently be another one."""
CLIENT = frozenset({"DARKROOM_URL", "DARKROOM_TOKEN", "DARKROOM_TOKEN_FILE"})
"""What `darkroom` as a client reads."""

# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_SERVICE = re.compile(r"\w+_SERVICE_(HOST|PORT(_\w+)?)|\w+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def variable(path: tuple[int | str, ...]) -> str:
    """Return the environment variable of a setting: `("s3", "bucket")` is DARKROOM_S3__BUCKET."""
    return PREFIX + "__".join(str(part) for part in path if not isinstance(part, int)).upper()


def leaves(
    model: type[BaseModel], path: tuple[str, ...] = (), given: Iterable[str] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Yield every setting, as the path to it and its field, in the order of their declaration.

    `given`: variables; the settings of the accounts that they name are among what is yielded.
    """
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, (*path, name), given)
        else:
            yield (*path, name), field
            yield from _of_accounts(field, (*path, name), given)


def _of_accounts(
    field: FieldInfo, path: tuple[str, ...], given: Iterable[str]
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    model, prefix = get_args(field.annotation)[-1:], f"{variable(path)}__"
    if not (model and isinstance(model[0], type) and issubclass(model[0], BaseModel)):
        return
    of_them = (name.upper().removeprefix(prefix) for name in given if name.upper().startswith(prefix))
    for account in dict.fromkeys(name.partition("__")[0].lower() for name in of_them):
        yield from leaves(model[0], (*path, account))


def is_secret(field: FieldInfo) -> bool:
    """Return whether a setting is a secret, or a list of them."""
    return "SecretStr" in str(field.annotation)


def nearest(name: str, model: type[BaseModel]) -> str:
    """Return a question that names the setting with the name most like this one, if one is like it."""
    import difflib  # only a mistake needs it

    known = [variable(path).removeprefix(PREFIX) for path, _ in leaves(model, given=[name])]
    found = difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1)
    return f"did you mean {PREFIX}{found[0]}?" if found else ""


def prepare(source: EnvSettingsSource) -> None:
    """Leave out what is empty and what Kubernetes sets, and put secrets in place of the names of their files.

    Raises SettingsError that names each file that cannot be used.
    """
    given = source.env_vars.items()
    variables = {name: value for name, value in given if _counts(name, value)}
    faults = []
    for name in _secrets(source.settings_cls, list(variables)):
        try:
            _read_file(variables, name.lower())
        except ValueError as error:
            faults.append(f"  {name}{FILE}: {error}")
    if faults:
        raise SettingsError("These settings are invalid:\n" + "\n".join(faults))
    source.env_vars = variables


def unknown(*sources: EnvSettingsSource) -> list[str]:
    """Return the names in the environment and `.env` that look like settings and are none, sorted."""
    model = sources[0].settings_cls
    known = {variable(path) for path, _ in leaves(model)} | CLIENT
    known |= {name + FILE for name in _secrets(model)}
    # What pydantic itself judges: `DARKROOM_S3={...}`, and whatever follows `DARKROOM_S3__`.
    groups = tuple(variable((path[0],)) for path, _ in leaves(model) if len(path) > 1)
    given = [(name, value) for source in sources for name, value in source.env_vars.items()]
    names = {name.upper() for name, value in given if _counts(name, value)}
    return sorted(
        name
        for name in names
        if name.startswith(PREFIX)
        and name not in known
        and name not in groups
        and not name.startswith(tuple(f"{group}__" for group in groups))
    )


def sources(model: type[BaseModel]) -> tuple[EnvSettingsSource, DotEnvSettingsSource]:
    """Return the environment and the `.env` file of the settings, as they are."""
    return EnvSettingsSource(model), DotEnvSettingsSource(model)  # type: ignore[arg-type]


def _counts(name: str, value: str | None) -> bool:
    """Return whether a variable is a setting that somebody set.

    It is not if it is empty, or if Kubernetes set it for a service whose name begins with `darkroom`.
    """
    name = name.upper()
    if not value:
        return name == NEVER_EMPTY
    linked = name.endswith("_PORT") and _ADDRESS.match(value)
    return not (name.startswith(PREFIX) and (linked or _OF_SERVICE.fullmatch(name)))


def _secrets(model: type[BaseModel], given: Iterable[str] = ()) -> list[str]:
    return [variable(path) for path, field in leaves(model, given=given) if is_secret(field)]


def read_secret_file(name: str) -> str:
    """Return the secret in a file, without the end of its line; raise ValueError if it cannot be used."""
    path = Path(name)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_FILE_BYTES} bytes, so it cannot be a secret")
    if not text.strip():
        raise ValueError(f"{path} is empty")
    return text


def _read_file(variables: dict[str, str | None], name: str) -> None:
    """Put a secret from its file among the variables; raise ValueError if that is not possible."""
    path = variables.pop(name + FILE.lower(), None)
    if path is None:
        return
    if variables.get(name) is not None:
        raise ValueError(f"{name.upper()} is set too; set one of the two")
    variables[name] = read_secret_file(path)
