"""Judge the name of a model by the lists of models that the gateways are known to have.

Gateways add models every day, so no list is complete: a name that is on none is accepted with a warning. Only
what is almost certainly a mistake is refused: another gateway's model, and a listed name with a typing error.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from itertools import takewhile

from receiver.gateways.base import Gateway

_VERSION = re.compile(r"\d[\da-z.]*")
"""A number with what is written to it: `4`, `2.7`, `2a`. Names that differ in one are different models."""
_MAX_SHOWN = 60
ANYWAY = "Ignore what is unsupported to send it as it is"
"""What to do if a name is meant; the API, the command and the form each have it in these words."""


def as_listed(gateway: Gateway, model: str) -> str:
    """Return a model as its gateway writes it: case apart, it may be one of those known here."""
    return next((known for known in gateway.models if known.casefold() == model.casefold()), model)


def mistaken(gateways: Mapping[str, Gateway], gateway: str, model: str) -> str | None:
    """Return why a model cannot be meant for a gateway, and what to do; None if it can."""
    own = gateways[gateway].models
    if not own or model in own:
        return None
    nearest = _nearest(model, own)
    if others := sorted(_listing(gateways, model)):
        instead = f", or the model to {nearest}" if nearest else ""
        return (
            f"is a model of {' and '.join(others)}, not of {gateway}; set the gateway to "
            f"{' or '.join(others)}{instead}. {ANYWAY}"
        )
    if meant := next((known for known in own if _mistyped(model, known)), None):
        return f"is no known model of {gateway}; did you mean {meant}? {ANYWAY}"
    return None


def warnings(gateways: Mapping[str, Gateway], gateway: str, model: str) -> tuple[str, ...]:
    """Return the warnings of a job with this model: one if the gateway's list lacks it."""
    own = gateways[gateway].models if gateway in gateways else ()
    if not own or as_listed(gateways[gateway], model) in own:
        return ()
    nearest = _nearest(model, own)
    alike = f" The nearest known is {nearest}." if nearest else ""
    return (
        f"{model[:_MAX_SHOWN]} is no known model of {gateway}. "
        f"It is sent as it is, and {gateway} may refuse it.{alike}",
    )


def _listing(gateways: Mapping[str, Gateway], model: str) -> Iterator[str]:
    return (name for name, one in gateways.items() if as_listed(one, model) in one.models)


def _nearest(model: str, known: Collection[str]) -> str | None:
    return next(iter(get_close_matches(model.casefold(), known, 1)), None)


def _mistyped(model: str, known: str) -> bool:
    """Return whether a name is a known one with other dashes, or with one typing error beside its numbers."""
    name, other = _letters(model), _letters(known)
    if name == other:
        return True
    return _VERSION.findall(model.casefold()) == _VERSION.findall(known.casefold()) and _one_slip(name, other)


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _one_slip(one: str, other: str) -> bool:
    """Return whether the edit distance is 1: one letter more, less or wrong, or two neighbours swapped."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    one, other = one[same:], other[same:]
    swapped = one[:2] == other[1::-1] and one[2:] == other[2:]
    return swapped or one[1:] in (other, other[1:]) or one == other[1:]
