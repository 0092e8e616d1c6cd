"""Write texts so that a spreadsheet neither runs them as formulas nor reads them as numbers or dates."""

import re

FORMULA = frozenset("=+-@\t\r\n＝＋－＠")  # noqa: RUF001 - the full-width ones, which spreadsheets read alike
"""Beginnings of formulas in spreadsheets, after spaces also (CSV injection):
https://owasp.org/www-community/attacks/CSV_Injection"""

_NUMBER = re.compile(r"[0-9.,][0-9.,:/eE+ -]*|true|false", re.IGNORECASE)
_SAFE_NUMBER = re.compile("0|[1-9][0-9]{0,14}")
"""Spreadsheets keep 15 digits: https://learn.microsoft.com/en-us/office/troubleshoot/excel/last-digits-changed"""


def guarded(text: str, *, numbers: bool = False) -> str:
    """Return a text that no spreadsheet runs as a formula: with a single quote in front where it would.

    `numbers`: also a text that it would change, because it reads it as a number, a date or a time.
    """
    bare = text.lstrip("'")
    first = bare.lstrip(" ")[:1] or bare[:1]
    # A text that has quotes already gets one more, so that `unguarded` can tell.
    changed = _NUMBER.fullmatch(bare) and not _SAFE_NUMBER.fullmatch(bare) and (numbers or bare != text)
    return f"'{text}" if first in FORMULA or changed else text


def unguarded(text: str) -> str:
    """Return the text that `guarded` was given."""
    return text[1:] if text[:1] == "'" and guarded(text[1:], numbers=True) == text else text
