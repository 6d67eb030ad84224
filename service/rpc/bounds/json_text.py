"""JSON in a request, read only if it has few enough values: each costs memory and time."""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any

from service.rpc.errors import InvalidRequestError, TooLargeError

# With possessive quantifiers, so that the cost is linear.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
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
    count = _separators(text)
    if count > most:  # commas and brackets in strings are no separators
        strings = sum(1 for _ in islice(_STRING.finditer(text), 2 * most + 1))
        if strings <= 2 * most:  # a name and a value each
            count = _separators(_STRING.sub("", text))
    return count


def _separators(text: str) -> int:
    """Every value is the first of all or of its container, or follows a comma."""
    return 1 + text.count(",") + text.count("[") + text.count("{")
