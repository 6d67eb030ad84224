"""JSON in a request, read only if it has few enough values: each costs memory and time."""

from __future__ import annotations

import json
import re
from typing import Any

from service.rpc.errors import InvalidRequestError, TooLargeError

# With possessive quantifiers, so that the cost is linear.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_WHOLE = re.compile(r'(?:[^"]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)  # no open string
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
        self.spend(field, _count_values(text, self._left))
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
        if self._left < 0:
            raise TooLargeError(
                f"{field}: the JSON of the request has more than {self._limit} values",
                "json_values",
            )


def _count_values(text: str, most: int) -> int:
    """Return how many values a JSON text has at most: exactly, or a number beyond `most`."""
    upper = _separators(text, most)
    if upper <= most:
        return upper
    count, at = 1, 0  # commas and brackets in strings are no separators
    while at < len(text) and count <= most:
        end = _WHOLE.match(text, at, at + _PIECE).end()  # type: ignore[union-attr]
        if end == at:  # a string longer than a piece
            at = _STRING.match(text, at).end()  # type: ignore[union-attr]
            continue
        count += _separators(_STRING.sub("", text[at:end]), most) - 1
        at = end
    return count


def _separators(text: str, most: int) -> int:
    """Count the values of a text without strings, until there are more than `most`.

    Every value is the first of all or of its container, or follows a comma.
    """
    count = 1
    for at in range(0, len(text), _PIECE):
        end = at + _PIECE
        count += text.count(",", at, end) + text.count("[", at, end) + text.count("{", at, end)
        if count > most:
            break
    return count
