"""`darkroom config`: list every setting with its value (secrets masked), default and help."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from receiver.cli.connection import Json
from receiver.cli.console import cell, out, print_json, say
from receiver.cli.run import exit_on_error, unreached, unused

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from receiver.settings import Settings

MASK = "********"


def config(*, as_json: Json = False) -> None:
    """List every setting: its variable, value, default and description."""
    with exit_on_error():
        from receiver.errors import SettingsError
        from receiver.settings import ignored, load, require

        settings = load()
        rows = settings_table(settings)
        if as_json:
            print_json([asdict(row) for row in rows])
            return
        print_settings(rows)
        for sentence in [*ignored(), *unused(settings), *unreached(settings)]:
            say(f"\n{sentence}", "yellow")
        try:
            require(settings)
        except SettingsError as error:
            say(f"\n{error}", "yellow")


def print_settings(rows: Iterable[Row]) -> None:
    """Print settings, each with its description below it."""
    for row in rows:
        line = Text.assemble((row.variable, "bold" if row.changed else ""), " = ", cell(row.value))
        if row.changed:
            line.append(f"  (default: {row.default or '-'})", "dim")
        out().print(line, soft_wrap=True)
        out().print(Text(f"    {row.help}", "dim"))


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `value` and `default` are written as in the environment; None means unset."""

    variable: str
    value: str | None
    default: str | None
    help: str
    secret: bool

    @property
    def changed(self) -> bool:
        """Return whether the value is not the default."""
        return self.value != self.default


def settings_table(settings: Settings | None = None) -> list[Row]:
    """Return all settings in the order of their declaration; without `settings`, with their defaults."""
    from receiver.settings import Settings
    from receiver.settings_sources import leaves

    rows = [_row(path, field, settings) for path, field in leaves(Settings)]
    return [*rows, *_of_accounts(settings)] if settings else rows


def _row(path: tuple[str, ...], field: FieldInfo, settings: Settings | None) -> Row:
    from receiver.field_docs import field_docs
    from receiver.settings import Settings
    from receiver.settings_sources import is_secret, variable

    group: Any = Settings
    for name in path[:-1]:
        group = group.model_fields[name].annotation
    default = field.get_default(call_default_factory=True)
    value = default if settings is None else reduce(getattr, path, settings)
    return Row(
        variable=variable(path),
        value=_shown(value),
        default=_shown(default),
        help=" ".join(field_docs(group)[path[-1]].split()),
        secret=is_secret(field),
    )


def _of_accounts(settings: Settings) -> Iterator[Row]:
    """Yield what is set of named accounts; the default of each is what the gateway itself has."""
    from receiver.settings_sources import is_secret, variable

    for gateway in settings.gateways.known.values():
        path = ("gateways", gateway.table.setting)
        group = settings.gateways.every()[gateway.table.name]
        for name, account in group.named.items():
            for key, field in type(account).model_fields.items():
                if key in account.model_fields_set:
                    yield Row(
                        variable=variable((*path, "accounts", name, key)),
                        value=_shown(getattr(account, key)),
                        default=None if is_secret(field) else _shown(getattr(group, key)),
                        help=" ".join((field.description or "").split()),
                        secret=is_secret(field),
                    )


def _shown(value: Any) -> str | None:
    from pydantic import SecretStr

    match value:
        case None | []:
            return None
        case SecretStr():
            return MASK
        case bool():
            return str(value).lower()
        case dict():
            return ",".join(value) or None
        case list():
            return ",".join(_shown(part) or "" for part in value)
        case Path() | int() | float() | str():
            return str(value)
        case _:
            raise TypeError(f"a setting of type {type(value).__name__} cannot be shown")
