"""What the functions of the client that make requests put into them."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from kvatlas.v1.scoring_pb2 import Prompt, ScoreRequest
from kvatlas_client import outcome_request, prompt, routing_request, score_request

BODY = {"messages": [{"role": "user", "content": "ü"}]}


@pytest.mark.parametrize("ids", [[], [0], [1, 2**32 - 1], range(1000)])
def test_token_ids_are_packed_as_little_endian(ids: Any) -> None:
    expected = struct.pack(f"<{len(ids)}I", *ids)
    assert score_request("m", ids).prompt.packed_token_ids == expected
    assert prompt(token_ids=iter(ids)).packed_token_ids == expected


@pytest.mark.parametrize("ids", [[-1], [2**32]])
def test_token_ids_that_do_not_fit_are_refused(ids: list[int]) -> None:
    with pytest.raises(OverflowError):
        score_request("m", ids)


@pytest.mark.parametrize("form", ["chat_completion", "completion", "messages"])
def test_bodies_are_sent_as_they_are_or_as_json(form: str) -> None:
    text = json.dumps(BODY)
    for body in (text, text.encode()):
        assert getattr(prompt(**{form: body}), form) == text  # type: ignore[arg-type]
    made = getattr(prompt(**{form: BODY}), form)  # type: ignore[arg-type]
    assert json.loads(made) == BODY


@pytest.mark.parametrize(
    "forms", [{}, {"text": "a", "token_ids": [1]}, {"text": "", "messages": ""}]
)
def test_exactly_one_prompt_is_given(forms: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="give one of token_ids"):
        prompt(**forms)


def test_options_are_the_fields_of_the_request() -> None:
    items = [("hash", 3, 4)]
    request = score_request(
        "m",
        prompt(text="", multimodal_items=items),
        pods=["p"],
        ranks=[("p", 0), ("q", 3)],
        tier_weights={"disk": 0.5},
        lora_name="a",
        cache_salt="s",
        only_holders=True,
        max_pods=2,
        by_rank=True,
        budget_ms=3,
        want_handle=True,
    )
    expected = ScoreRequest(
        model="m",
        prompt=Prompt(text=""),
        pods=["p"],
        tier_weights={"disk": 0.5},
        lora_name="a",
        cache_salt="s",
        only_holders=True,
        max_pods=2,
        by_rank=True,
        budget_ms=3,
        want_handle=True,
    )
    expected.prompt.multimodal_items.add(hash="hash", offset=3, length=4)
    expected.ranks.add(pod="p", rank=0)
    expected.ranks.add(pod="q", rank=3)
    assert request == expected


def test_every_field_of_the_request_has_an_option() -> None:
    from kvatlas_client import OutcomeOptions, RoutingOptions, ScoreOptions

    pairs = [
        (score_request("m", [1]), ScoreOptions, {"model", "prompt"}),
        (routing_request(b"h", "p"), RoutingOptions, {"handle", "pod"}),
        (outcome_request(b"h", 1), OutcomeOptions, {"handle", "cached_tokens"}),
    ]
    for message, options, arguments in pairs:
        fields = {field.name for field in message.DESCRIPTOR.fields}
        assert fields == set(options.__annotations__) | arguments


def test_a_rank_that_is_not_given_is_absent() -> None:
    assert not routing_request(b"h", "p").HasField("rank")
    assert routing_request(b"h", "p", rank=0).HasField("rank")
    assert not outcome_request(b"h", 1).HasField("rank")
