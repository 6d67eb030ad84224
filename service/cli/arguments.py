"""Numbers on the command line, within their bounds."""

from __future__ import annotations

import argparse
import math


def positive_integer(text: str) -> int:
    """An integer from 1. Raises argparse.ArgumentTypeError."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return number


def positive_number(text: str) -> float:
    """A number above 0. Raises argparse.ArgumentTypeError."""
    number = _number(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def number_from_zero(text: str) -> float:
    """A number from 0. Raises argparse.ArgumentTypeError."""
    number = _number(text)
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return number


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return -1.0
    return number if math.isfinite(number) else -1.0
