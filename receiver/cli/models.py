"""`darkroom models`: list the models of the gateways, with what each takes and costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from receiver.cli.connection import Connection, Json
from receiver.cli.console import Column, print_json, print_table
from receiver.cli.options import Gateway

if TYPE_CHECKING:
    from receiver.schemas.offers import Model

_COLUMNS: Sequence[Column[Model]] = (
    Column("MODEL", lambda one: one.model),
    Column("GATEWAY", lambda one: one.gateway),
    Column("CREDITS", lambda one: None if one.estimate is None else f"{one.estimate:g}", right=True),
    Column("TAKES", lambda one: ", ".join(one.takes), wrapped=True),
    Column("ASPECT RATIOS", lambda one: " ".join(one.aspect_ratios), room=100, wrapped=True),
)


def models(*, gateway: Gateway = None, as_json: Json = False, connection: Connection) -> None:
    """List the models of the gateways: credits for one image, and what each takes.

    Gateways may have newer models, which can be submitted too.
    """
    with connection.open() as darkroom:
        found = darkroom.models(gateway).models
    if as_json:
        print_json(found)
        return
    print_table(_COLUMNS, found, nothing="No models are known.")
