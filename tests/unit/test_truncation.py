"""Which of a prompt's tokens truncate_prompt_tokens leaves."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from tokenization import ChatError
from tokenization.encode.truncation import truncation_of

IDS = array("I", [100, 1, 2, 3, 4, 200])  # the tokenizer added 100 and 200


@pytest.mark.parametrize(
    ("request_", "left"),
    [
        ({"truncate_prompt_tokens": 6}, IDS.tolist()),
        ({"truncate_prompt_tokens": 4}, [100, 3, 4, 200]),
        ({"truncate_prompt_tokens": 2}, [100, 200]),
        ({"truncate_prompt_tokens": 4, "truncation_side": "left"}, [2, 3, 4, 200]),
        ({"truncate_prompt_tokens": 4, "truncation_side": "right"}, [100, 1, 2, 3]),
        ({"truncate_prompt_tokens": -1}, [100, 3, 4, 200]),
    ],
)
def test_truncation_keeps_special_tokens_unless_a_side_is_given(
    request_: dict[str, Any], left: list[int]
) -> None:
    truncation = truncation_of(request_, 5 if request_["truncate_prompt_tokens"] < 0 else None)
    assert truncation is not None
    assert truncation.cut(IDS, 1, 1).tolist() == left


def test_a_prompt_without_a_limit_is_not_truncated() -> None:
    assert truncation_of({}, None) is None


@pytest.mark.parametrize("said", [0, -2, "5", 1.5, True, 11, -1])
def test_a_limit_that_is_no_number_of_tokens_is_refused(said: Any) -> None:
    most = None if said == -1 else 10
    with pytest.raises(ChatError, match="truncate_prompt_tokens"):
        truncation_of({"truncate_prompt_tokens": said}, most)


def test_a_limit_below_the_special_tokens_is_refused() -> None:
    truncation = truncation_of({"truncate_prompt_tokens": 1}, None)
    assert truncation is not None
    with pytest.raises(ChatError, match="no room"):
        truncation.cut(IDS, 1, 1)
