"""Which operations of templates make large values of small ones, and how large.

Python computes `"a" * n` or `9 ** n` in one step that nothing interrupts, so each check looks at
the operands first. All checks raise TemplateLimitError, and otherwise do nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Any

from tokenization.chat.watch import check_size
from tokenization.errors import TemplateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_BITS = 4096  # of an integer in arithmetic: the time it takes grows with the square
_MAX_DIGITS = 1000  # that a number is rounded to
_WIDE = re.compile(r"[%).][-#0 +]*\d{7,}")  # a width or precision of a format


# Operators


def _check_integers(left: Any, right: Any) -> None:
    for value in (left, right):
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise TemplateLimitError("computes with an integer that is too large")


def _check_sum(left: Any, right: Any) -> None:
    if isinstance(left, Sized) and isinstance(right, Sized):
        check_size(len(left) + len(right))
    else:
        _check_integers(left, right)


def _check_product(left: Any, right: Any) -> None:
    _check_integers(left, right)
    for value, count in ((left, right), (right, left)):
        if isinstance(value, Sized) and isinstance(count, int):
            check_size(len(value) * count)


def _check_power(left: Any, right: Any) -> None:
    _check_integers(left, right)
    if isinstance(left, int) and isinstance(right, int) and right > 0:
        bits = left.bit_length() * right
        if bits > _MAX_BITS:
            raise TemplateLimitError("computes with an integer that is too large")


def _check_modulo(left: Any, right: Any) -> None:
    if isinstance(left, str | bytes):
        check_format(left if isinstance(left, str) else left.decode("latin-1"), right)
    else:
        _check_integers(left, right)


OPERATORS: Mapping[str, Callable[[Any, Any], None]] = {
    "+": _check_sum,
    "-": _check_integers,
    "*": _check_product,
    "/": _check_integers,
    "//": _check_integers,
    "%": _check_modulo,
    "**": _check_power,
}
"""Operator -> its check, which takes both operands."""


# Texts


def check_format(form: str, given: Any) -> None:
    """Check `form % given`."""
    if isinstance(given, tuple):
        values = given
    else:
        values = tuple(given.values()) if isinstance(given, Mapping) else (given,)
    widths = [value for value in values if isinstance(value, int)] if "*" in form else []
    if _WIDE.search(form):
        raise TemplateLimitError("formats with a width that is too large")
    sizes = [len(value) for value in values if isinstance(value, Sized)]
    repeated = max(0, form.count("%") - len(values)) if sizes else 0
    check_size(len(form) + sum(sizes) + repeated * max(sizes, default=0) + sum(map(abs, widths)))


def check_widths(specification: str) -> None:
    """Check the specification of a field of `str.format`, such as ">80"."""
    for digits in re.findall(r"\d+", specification):
        check_size(int(digits) if len(digits) < 10 else float("inf"))


def check_replace(text: Any, old: Any, new: Any, count: Any = None) -> None:
    """Check `text.replace(old, new, count)`; bytes are too rare to count in."""
    if isinstance(text, bytes) and isinstance(new, Sized):
        check_size(len(text) * max(1, len(new)))
    if isinstance(text, str) and isinstance(old, str) and isinstance(new, Sized):
        found = text.count(old)
        if isinstance(count, int) and count >= 0:
            found = min(found, count)
        check_size(len(text) + found * max(0, len(new) - len(old)))


def check_indent(text: Any, width: Any) -> None:
    """Check the indentation of every line by `width` spaces, or by a text."""
    size = len(width) if isinstance(width, str) else width
    if isinstance(size, int):
        check_size(len(str(text)) + (str(text).count("\n") + 1) * size)


def check_join(separator: Any, items: list[Any]) -> None:
    """Check a list of texts, joined."""
    sizes = sum(len(item) for item in items if isinstance(item, Sized))
    check_size(sizes + len(items) * (len(separator) if isinstance(separator, Sized) else 1))


def check_count(count: Any) -> None:
    """Check a number of characters or entries that a filter makes."""
    if isinstance(count, int):
        check_size(abs(count))


def check_digits(precision: Any) -> None:
    """Check the precision that a number is rounded to."""
    if isinstance(precision, int) and abs(precision) > _MAX_DIGITS:
        raise TemplateLimitError("rounds to more digits than a number has")


def check_division(value: Any, by: Any) -> None:
    """Check `value % by` of numbers."""
    _check_integers(value, by)


# Methods


def _check_expandtabs(text: Any, size: Any = 8) -> None:
    if isinstance(size, int):
        tabs = text.count("\t") if isinstance(text, str) else text.count(b"\t")
        check_size(len(text) + tabs * size)


def _first_as_count(_: Any, count: Any = 0, *__: Any) -> None:
    check_count(count)


METHODS: Mapping[str, Callable[..., None]] = {
    **dict.fromkeys(("center", "ljust", "rjust", "zfill", "to_bytes"), _first_as_count),
    "expandtabs": _check_expandtabs,
    "replace": check_replace,
}
"""Name of a method of texts and numbers -> its check, which takes the object and arguments."""
