"""Values on the command line: numbers within their bounds, texts that are UTF-8."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click


class Number(click.ParamType[float]):
    """A finite number from a bound, or above it."""

    def __init__(
        self, what: str, least: float, *, whole: bool = False, above: bool = False
    ) -> None:
        self.name = what
        self._least = least
        self._whole = whole
        self._above = above

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | int:
        """The number that the text means."""
        number: float | int
        try:
            number = int(value) if self._whole else float(value)
        except ValueError:
            number = math.nan
        is_within = number > self._least if self._above else number >= self._least
        if not (is_within and math.isfinite(number)):
            self.fail(f"{value!r} is not {self.name}", param, ctx)
        return number


class Text(click.ParamType[str]):
    """A text that a message of protobuf can hold."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text."""
        try:
            str(value).encode()
        except UnicodeEncodeError:
            self.fail(f"{value!r} is not valid UTF-8", param, ctx)
        return str(value)


POSITIVE_INTEGER = Number("a whole number from 1", 1, whole=True)
INTEGER_FROM_ZERO = Number("a whole number from 0", 0, whole=True)
POSITIVE_NUMBER = Number("a number above 0", 0, above=True)
NUMBER_FROM_ZERO = Number("a number from 0", 0)
TEXT = Text()
FILE = click.Path(path_type=Path)
