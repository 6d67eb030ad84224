"""Lines of a stream: the same wherever its chunks end, and bounded."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.discovery.kubernetes.failures import ApiFailure
from service.discovery.kubernetes.lines import LineBuffer

TEXT = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b" "]), max_size=30).map(b"".join)


@given(TEXT, st.lists(st.integers(0, 60), max_size=8))
def test_lines_are_the_same_wherever_chunks_end(text: bytes, cuts: list[int]) -> None:
    buffer = LineBuffer(100)
    bounds = [0, *sorted(cuts), len(text)]
    lines = []
    for start, end in itertools.pairwise(bounds):
        lines += buffer.feed(text[start:end])
    *complete, rest = text.split(b"\n")
    assert lines == [line for line in complete if line.strip()]
    assert buffer.is_within_line == bool(rest)


def test_a_line_that_is_too_long_is_refused_as_soon_as_it_is() -> None:
    buffer = LineBuffer(10)
    assert buffer.feed(b"x" * 10) == []
    with pytest.raises(ApiFailure, match="more than 10 bytes") as caught:
        buffer.feed(b"x")
    assert caught.value.is_stale
    assert buffer.feed(b"0123456789\n") == [b"0123456789"]
