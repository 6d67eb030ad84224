"""JSON in a request, read only if it has few enough values: each costs memory and time."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from service.rpc.errors import InvalidRequestError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Generator

# A string, and all up to an open string; with possessive quantifiers, so that the cost is linear.
_STRING, _WHOLE = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', r'(?:[^"]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+'
_OF_TEXT = tuple(re.compile(each, re.DOTALL) for each in (_STRING, _WHOLE))
_OF_BYTES = tuple(re.compile(each.encode(), re.DOTALL) for each in (_STRING, _WHOLE))
_PIECE = 65_536  # characters that are looked at together
_MAYBE_LONE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)


class JsonReader:
    """Reads the JSON texts of one request, which may have `values` values together."""

    def __init__(self, values: int) -> None:
        self._limit = values
        self._left = values

    def read(self, field: str, text: str) -> Any:
        """Return the value that the text of `field` is.

        Raises:
            InvalidRequestError: it is not JSON, or contains half of a surrogate pair, which is no
                text that could be tokenized.
            TooLargeError: there are too many values.
        """
        self.spend(field, _at_once(count_values(text, 0, len(text), self._left)))
        try:
            value = json.loads(text)
            if _MAYBE_LONE.search(text):
                json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"{field} is no Unicode text: it contains a lone surrogate"
            ) from error
        except (ValueError, RecursionError) as error:
            raise InvalidRequestError(f"{field} is not JSON: {error}") from error
        return value

    def spend(self, field: str, count: int) -> None:
        """Count `count` more values. Raises TooLargeError."""
        self._left -= count
        check_values(field, self._limit - self._left, self._limit)


def check_values(field: str, count: int, limit: int) -> None:
    """Raise TooLargeError if there are more values than the limit."""
    if count > limit:
        raise TooLargeError(
            f"{field}: the JSON of the request has more than {limit} values", "json_values"
        )


def count_values(text: Any, start: int, end: int, most: int) -> Generator[None, None, int]:
    """Count the values of a JSON text, given as a part of a str or of bytes.

    Yields after every piece of it. Returns how many there are at most: exactly, or a number beyond
    `most`.
    """
    comma, bracket, brace = (",", "[", "{") if isinstance(text, str) else (b",", b"[", b"{")

    def separators(part: Any, start: int, end: int) -> int:
        """Every value is the first of all or of its container, or follows one of these."""
        counts = (part.count(each, start, end) for each in (comma, bracket, brace))
        return sum(counts)

    count = 1
    for at in range(start, end, _PIECE):
        count += separators(text, at, min(at + _PIECE, end))
        yield
        if count > most:
            break
    if count <= most:
        return count
    string: Any
    whole: Any
    string, whole = _OF_TEXT if isinstance(text, str) else _OF_BYTES
    nothing = text[:0]
    count, at = 1, start  # commas and brackets in strings are no separators
    while at < end and count <= most:
        stop = whole.match(text, at, min(at + _PIECE, end)).end()
        if stop == at:  # a string longer than a piece
            at = string.match(text, at, end).end()
        else:
            part = string.sub(nothing, text[at:stop])
            count += separators(part, 0, len(part))
            at = stop
        yield
    return count


def _at_once(counting: Generator[None, None, int]) -> int:
    while True:
        try:
            next(counting)
        except StopIteration as ended:
            return int(ended.value)
