"""Answers of replay sockets, as engines of different age send them."""

from __future__ import annotations

import pytest

from kvevents.transport.frame import Frame
from kvevents.transport.replay_client import ReplayError, parse_answer

SEVEN = (7).to_bytes(8, "big")
EPOCH = b"0123456789abcdef"


@pytest.mark.parametrize(
    ("parts", "answer"),
    [
        ([b"", b"kv@a:1@m", SEVEN, b"payload"], Frame(b"kv@a:1@m", 7, b"payload")),
        ([b"", SEVEN, b"payload"], Frame(b"", 7, b"payload")),
        ([SEVEN, b"payload"], Frame(b"", 7, b"payload")),
        ([b"", b"t", SEVEN + EPOCH, b"payload"], Frame(b"t", 7, b"payload", EPOCH)),
        ([b"", b"kv@a:1@m", b"\xff" * 8, b""], None),
        ([b"", b"\xff" * 8, b""], None),
        ([b"\xff" * 8, b""], None),
    ],
)
def test_answers_of_replay_sockets_are_frames_or_the_end(
    parts: list[bytes], answer: Frame | None
) -> None:
    assert parse_answer(parts) == answer


@pytest.mark.parametrize("parts", [[], [b"payload"], [b"", b"short", b"payload"]])
def test_an_answer_that_is_neither_a_frame_nor_the_end_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(ReplayError, match="8 or 24 bytes"):
        parse_answer(parts)
