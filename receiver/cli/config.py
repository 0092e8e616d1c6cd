"""`darkroom config`: list every setting with its value (secrets masked), default and help."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from receiver.cli.connection import Json
from receiver.cli.console import cell, out, print_json, say
from receiver.cli.serve import exit_on_error

if TYPE_CHECKING:
    from pydantic import BaseModel

    from receiver.settings import Settings

MASK = "********"


def config(*, as_json: Json = False) -> None:
    """List every setting: its variable, value, default and description."""
    with exit_on_error():
        from receiver.errors import SettingsError
        from receiver.settings import load, require

        settings = load()
        rows = settings_table(settings)
        if as_json:
            print_json([asdict(row) for row in rows])
            return
        print_settings(rows)
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

    return list(_rows(Settings, settings, ()))


def _rows(model: type[BaseModel], values: BaseModel | None, path: tuple[str, ...]) -> Iterator[Row]:
    from pydantic import BaseModel

    from receiver.settings import variable

    for name, field in model.model_fields.items():
        here = (*path, name)
        value = None if values is None else getattr(values, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _rows(field.annotation, value, here)
            continue
        default = field.get_default(call_default_factory=True)
        yield Row(
            variable=variable(here),
            value=_shown(default if values is None else value),
            default=_shown(default),
            help=" ".join((field.description or "").split()),
            secret="SecretStr" in str(field.annotation),
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
        case list():
            return ",".join(_shown(part) or "" for part in value)
        case Path() | int() | float() | str():
            return str(value)
        case _:
            raise TypeError(f"a setting of type {type(value).__name__} cannot be shown")
