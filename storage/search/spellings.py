"""Add up counts of names that differ in case only, under the spelling that is used most."""

from collections import Counter
from collections.abc import Mapping

from storage.ledger.search_index import lower


def spellings(used: Mapping[str, int]) -> dict[str, str]:
    """Return for each name how it is shown: of those that are the same in lower case, the one used most."""
    best: dict[str, str] = {}
    for name in sorted(used, key=lambda name: (-used[name], name)):
        best.setdefault(lower(name), name)
    return {name: best[lower(name)] for name in used}


def added_up(used: Mapping[str, int]) -> Counter[str]:
    """Return the counts by the name that is shown."""
    shown, found = spellings(used), Counter[str]()
    for name, number in used.items():
        found[shown[name]] += number
    return found
