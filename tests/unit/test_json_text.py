"""JSON of requests is read if it is text of few enough values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rpc.bounds import json_text
from service.rpc.bounds.json_text import JsonReader, count_values
from service.rpc.errors import InvalidRequestError, TooLargeError


@pytest.mark.parametrize(
    "value",
    [
        1,
        "a,b,c,d,[,{,\\",
        'a "quoted, text", twice',
        {"a,": [1, 2], "b": {"c": "[[[["}},
        ["\U0001f600", "\\ud800", "é"],
        {"text": "," * 1000, "more": ["x"]},
        [],
    ],
)
def test_a_text_of_few_values_is_read(value: Any) -> None:
    assert JsonReader(8).read("f", json.dumps(value)) == value
    assert JsonReader(8).read("f", json.dumps(value, ensure_ascii=False)) == value


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([0] * 100),
        json.dumps([[]] * 100),
        json.dumps([{}] * 100),
        json.dumps(["a"] * 100),
        json.dumps({str(number): number for number in range(100)}),
        "[" * 100,
        '"",' * 100,
    ],
)
def test_a_text_of_many_values_is_refused_before_it_is_read(text: str) -> None:
    with pytest.raises(TooLargeError, match=r"more than 50 values \(limits\.json_values\)"):
        JsonReader(50).read("f", text)


def test_the_texts_of_one_request_count_together() -> None:
    reader = JsonReader(10)
    reader.read("a", "[1, 2, 3]")
    reader.read("b", "[1, 2, 3]")
    with pytest.raises(TooLargeError):
        reader.read("c", "[1, 2, 3]")


@pytest.mark.parametrize("text", ["{", "[" * 40, "nul", "", '{"a": "\x00"}', "9" * 5000])
def test_a_text_that_is_no_json_is_refused_as_such(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^f is not JSON"):
        JsonReader(50).read("f", text)


@pytest.mark.parametrize(
    "text",
    [
        r'"\ud800"',
        r'"\udc00"',
        r'"\udc00\ud800"',
        r'{"cache_salt": "\uD800x"}',
        r'{"\ud83d": 1}',
        r'["\ud83d\ud83d\ude00"]',
        r'"\\\ud800"',
    ],
)
def test_half_of_a_surrogate_pair_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^f is no Unicode text"):
        JsonReader(50).read("f", text)


@given(
    st.lists(st.sampled_from(['"', "\\", ",", "[", "{", "é", "a", '\\"', "x" * 30])),
    st.integers(1, 9),
)
def test_values_are_counted_alike_in_a_text_and_in_its_bytes(parts: list[str], most: int) -> None:
    text = "".join(parts)
    raw = text.encode()

    def counted(text: Any, start: int, end: int) -> int:
        counting = count_values(text, start, end, most)
        while True:
            try:
                next(counting)
            except StopIteration as ended:
                return min(most + 1, int(ended.value))

    whole = counted(text, 0, len(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "_PIECE", 10)
        assert counted(text, 0, len(text)) == whole
        assert counted(b"[,[" + raw + b"[,[", 3, 3 + len(raw)) == whole
