"""Read the docstrings under the fields of a model, where a description of them is asked for.

Pydantic's `use_attribute_docstrings` reads the source of every class at each start, which takes longer than
all the rest of its work.
"""

import ast
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from textwrap import dedent

from pydantic import BaseModel


@cache
def field_docs(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the description of each field that has one: its own, or else the docstring under it."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls.__module__.partition(".")[0] != "pydantic":
            found |= dict(_own(cls))
    described = {name: field.description for name, field in model.model_fields.items()}
    return {name: text for name in described if (text := described[name] or found.get(name))}


def _own(cls: type) -> Iterator[tuple[str, str]]:
    try:
        (defined,) = ast.parse(dedent(inspect.getsource(cls))).body
    except OSError:  # It was made of a table, with descriptions of its own.
        return
    assert isinstance(defined, ast.ClassDef)
    for field, doc in zip(defined.body, defined.body[1:], strict=False):
        match field, doc:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
