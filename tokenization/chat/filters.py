"""Jinja's filters that can make large values of small ones, each checked before it works.

A check takes the arguments of its filter; those that a template may name have the same names.
"""

from __future__ import annotations

import json
from functools import wraps
from typing import TYPE_CHECKING, Any

from jinja2.filters import FILTERS, make_attrgetter

from tokenization.chat import expansion
from tokenization.chat.watch import check_size
from tokenization.errors import TemplateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jinja2.nodes import EvalContext

_MAX_INDENT = 64  # characters that `tojson` puts before an entry, and between two


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return a value as JSON, in the form that transformers gives it."""
    widths = [len(indent) if isinstance(indent, str) else indent or 0, *map(len, separators or ())]
    if max(widths) > _MAX_INDENT:
        raise TemplateLimitError("indents JSON too far")
    if indent is None:
        text = json.dumps(
            value, ensure_ascii=ensure_ascii, separators=separators, sort_keys=sort_keys
        )
        check_size(len(text))
        return text
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    size = 0
    pieces = []
    for piece in encoder.iterencode(value):
        size += len(piece)
        check_size(size)
        pieces.append(piece)
    return "".join(pieces)


def _checked(name: str, check: Callable[..., None]) -> Callable[..., Any]:
    original = FILTERS[name]

    @wraps(original)
    def checked(*args: Any, **kwargs: Any) -> Any:
        check(*args, **kwargs)
        return original(*args, **kwargs)

    return checked


def _center(_: Any, width: Any = 80) -> None:
    expansion.check_count(width)


def _format(form: Any, *args: Any, **kwargs: Any) -> None:
    expansion.check_format(str(form), kwargs or args)


def _indent(text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    expansion.check_indent(text, width)


def _replace(_: EvalContext, text: Any, old: Any, new: Any, count: Any = None) -> None:
    expansion.check_replace(str(text), str(old), str(new), count)


def _wordwrap(_: Any, text: Any, *args: Any, **kwargs: Any) -> None:
    widest = max((len(arg) for arg in (*args, *kwargs.values()) if isinstance(arg, str)), default=1)
    check_size(len(str(text)) * widest)  # at most a separator after every character


def _batch(_: Any, linecount: Any, *__: Any, **___: Any) -> None:
    expansion.check_count(linecount)


def _slice(_: EvalContext, __: Any, slices: Any, *___: Any, **____: Any) -> None:
    expansion.check_count(slices)


def _round(_: Any, precision: Any = 0, *__: Any, **___: Any) -> None:
    expansion.check_digits(precision)


_join = FILTERS["join"]


@wraps(_join)
def _joined(context: EvalContext, value: Any, d: Any = "", attribute: Any = None) -> Any:
    """Join texts. Not a check: looking at the values of a generator takes them from it."""
    if attribute is not None:
        value = map(make_attrgetter(context.environment, attribute), value)
    items = list(value)
    expansion.check_join(d, items)
    return _join(context, items, d)


_CHECKS: Mapping[str, Callable[..., None]] = {
    "center": _center,
    "format": _format,
    "indent": _indent,
    "replace": _replace,
    "wordwrap": _wordwrap,
    "batch": _batch,
    "slice": _slice,
    "round": _round,
}
BOUNDED_FILTERS: Mapping[str, Callable[..., Any]] = {
    "tojson": tojson,
    "join": _joined,
    **{name: _checked(name, check) for name, check in _CHECKS.items()},
}
"""Name -> filter, for those that differ from Jinja's own."""
