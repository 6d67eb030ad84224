"""Which labels a selector finds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SETS = re.compile(r"(\S+)\s+(in|notin)\s*\(([^)]*)\)")


def matches(selector: str, labels: Mapping[str, str]) -> bool:
    """Whether the labels meet every requirement of the selector."""
    requirements = re.split(r",(?![^(]*\))", selector) if selector.strip() else []
    return all(_meets(requirement.strip(), labels) for requirement in requirements)


def _meets(requirement: str, labels: Mapping[str, str]) -> bool:
    if found := _SETS.fullmatch(requirement):
        key, operator, values = found.groups()
        is_in = labels.get(key) in {value.strip() for value in values.split(",")}
        return is_in == (operator == "in")
    for operator in ("!=", "==", "="):
        key, separator, value = requirement.partition(operator)
        if separator:
            is_equal = labels.get(key.strip()) == value.strip()
            return is_equal != (operator == "!=")
    if requirement.startswith("!"):
        return requirement[1:].strip() not in labels
    return requirement in labels
