"""Reads values out of JSON that somebody else has written."""

from __future__ import annotations

from typing import Any

from service.engines.facts import EngineAnswerError

_MOST_CHARACTERS = 1024


def table(value: Any, what: str) -> dict[str, Any]:
    """`value`, which has to be an object. Raises EngineAnswerError."""
    if not isinstance(value, dict):
        raise EngineAnswerError("malformed", f"{what} is not an object")
    return value


def text(values: dict[str, Any], name: str, default: str = "") -> str:
    """A text; `default` if there is none. Raises EngineAnswerError."""
    value = values.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or len(value) > _MOST_CHARACTERS or not value.isprintable():
        raise EngineAnswerError("malformed", f"{name} is not a short text")
    return value


def number(values: dict[str, Any], name: str, most: int) -> int | None:
    """A number from 0 to `most`; None if there is none. Raises EngineAnswerError."""
    value = values.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise EngineAnswerError("malformed", f"{name} is no number from 0 to {most}")
    return value
