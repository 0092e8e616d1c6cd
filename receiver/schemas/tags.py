"""Types of tag names: letters and digits of any script, with spaces, dots, dashes and underscores."""

from typing import Annotated

from pydantic import StringConstraints

FILTER = "tag."
# Few dialects of regular expressions know letters of any script, so what may not be there is named: ASCII's
# signs but `_`, `.` and `-`, controls, what changes the direction of text, the spaces and quotes of other
# scripts, and the wide `=` and `:` that the search language reads as the narrow ones.
_NOT = (
    r"\x00-\x1f!-,/:-@\[-\^`{-\xa0\u1680\u2000-\u200b\u200e\u200f\u201c-\u201f"
    r"\u2028-\u202f\u205f-\u206f\u3000\ufeff\uff02\uff1a\uff1d"
)
_NAME = f"[^ {_NOT}](?:[^{_NOT}]{{0,62}}[^ {_NOT}])?"
TAG_NAME = f"^{_NAME}$"
TAG_FILTER = rf"^tag\.{_NAME}$"
MEANING = "must be 1 to 64 letters, digits, dots, dashes, underscores, and spaces between them"

TagName = Annotated[str, StringConstraints(pattern=TAG_NAME)]
TagFilter = Annotated[str, StringConstraints(pattern=TAG_FILTER)]
"""The parameter `tag.<name>`."""
