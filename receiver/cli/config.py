"""Every setting as a row: its variable, value (secrets masked), default and sentence of help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from receiver.settings import Settings, variable

MASK = "********"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `value` and `default` are text as the environment takes it; None means unset."""

    variable: str
    value: str | None
    default: str | None
    help: str
    secret: bool

    @property
    def changed(self) -> bool:
        """Whether it was set to something else than its default."""
        return self.value != self.default


def settings_table(settings: Settings | None = None) -> list[Row]:
    """List all settings in the order of their declaration; without `settings`, with their defaults."""
    return list(_rows(Settings, settings, ()))


def _rows(model: type[BaseModel], values: BaseModel | None, path: tuple[str, ...]) -> Iterator[Row]:
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
            help=field.description or "",
            secret=_is_secret(field),
        )


def _is_secret(field: FieldInfo) -> bool:
    return "SecretStr" in str(field.annotation)


def _shown(value: Any) -> str | None:
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
