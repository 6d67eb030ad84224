"""A few explanations may be under way at once; further ones are refused."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from service.rpc.errors import TooBusyError
from service.rpc.explain.room import MOST_CALLS, ExplainRoom


def test_beyond_a_few_calls_further_ones_are_refused_until_one_ends() -> None:
    room = ExplainRoom()
    with ExitStack() as stack:
        for _ in range(MOST_CALLS - 1):
            stack.enter_context(room.place())
        for _ in range(3):
            with room.place(), pytest.raises(TooBusyError, match="4 explanations"):
                room.place().__enter__()


def test_a_call_that_fails_leaves_its_place() -> None:
    room = ExplainRoom()
    for _ in range(3 * MOST_CALLS):
        with pytest.raises(ValueError, match="fails"), room.place():
            raise ValueError("fails")
