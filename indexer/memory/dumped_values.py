"""Values of a dump, read from disk: of the right type and within their bounds, or refused.

Each function raises TypeError or ValueError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TYPES = {"Q": np.uint64, "I": np.uint32, "B": np.uint8}


def integer(value: Any, least: int, most: int) -> int:
    """Return `value`, an integer from `least` to `most`."""
    if type(value) is not int:
        raise TypeError(f"{value!r:.40} is not an integer")
    if not least <= value <= most:
        raise ValueError(f"{value} is not between {least} and {most}")
    return value


def text(value: Any) -> str:
    """Return `value`, a string."""
    if type(value) is not str:
        raise TypeError(f"{value!r:.40} is not a string")
    return value


def distinct_integers(values: Any, least: int, most: int) -> set[int]:
    """Return a list of integers from `least` to `most`, none of which is in it twice."""
    if not isinstance(values, list):
        raise TypeError(f"{values!r:.40} is not a list")
    distinct = {integer(value, least, most) for value in values}
    if len(distinct) != len(values):
        raise ValueError("a number is listed twice")
    return distinct


def numbers(value: Any, typecode: str) -> NDArray[Any]:
    """Return the unsigned integers that `value`, bytes, consists of; typecode: as of an array."""
    if type(value) is not bytes:
        raise TypeError(f"{value!r:.40} is not bytes")
    return np.frombuffer(value, _TYPES[typecode])
