"""Recorders: as many as are allowed, and what they are too slow for."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from kvevents import TooManyRecordersError
from kvevents.tools.recording import Recorders


async def test_a_recorder_beyond_the_fourth_is_refused_until_another_ends() -> None:
    recorders = Recorders()
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(recorders.recording(""))
        with recorders.recording(""):
            with (
                pytest.raises(TooManyRecordersError, match="4 recordings"),
                recorders.recording(""),
            ):
                pass
            assert (len(recorders), recorders.refused) == (4, 1)
        with recorders.recording(""):
            assert len(recorders) == 4
    assert not recorders


async def test_a_slow_recorder_drops_what_does_not_fit_and_is_told_how_much() -> None:
    recorders, kept = Recorders(), [b"", b"", bytes(15 * 1024**2)]
    with recorders.recording("") as frames:
        for _ in range(4):
            recorders.record("tcp://a:1", kept)
        assert recorders.dropped == 2
        assert [(await anext(frames)).dropped for _ in range(2)] == [0, 0]
        recorders.record("tcp://a:1", kept)
        assert (await anext(frames)).dropped == 2


async def test_small_frames_are_charged_for_more_than_their_bytes() -> None:
    recorders = Recorders()
    with recorders.recording(""):
        for _ in range(200_000):
            recorders.record("tcp://a:1", [b"", b"", b""])
    assert recorders.dropped >= 100_000  # a frame without bytes takes more than 320
