"""Text for a terminal: what others have named must not control it."""

from __future__ import annotations

import sys

_KEPT = {"\n", "\t"}


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with control characters and the like written out, such as \x1b for an escape.

    Args:
        text: anything.
        lines: whether it may have several lines, and tabs.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or (lines and character in _KEPT)
        else character.encode("unicode_escape").decode()
        for character in text
    )


def complain(message: str) -> None:
    """Print a message of the command on standard error."""
    print(f"kvatlas: {printable(message)}", file=sys.stderr, flush=True)
