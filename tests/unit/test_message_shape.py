"""A large message is counted before it is decoded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.message import Message
from kvatlas.compat import tokenization_pb2 as compat
from kvatlas.v1 import scoring_pb2

from service.config import LimitsSection
from service.rpc.bounds.message_shape import MessageShape
from service.rpc.errors import TooLargeError

LIMITS = LimitsSection(prompts=3, pods=4, multimodal_items=5, json_values=6)


class Pauses:
    """Counts the pauses of a call."""

    def __init__(self) -> None:
        self.count = 0

    async def pause(self) -> None:
        self.count += 1

    first_slice = pause


def check(message: Message, raw: bytes | None = None, limits: LimitsSection = LIMITS) -> int:
    """Count a message; how often the call has paused."""
    work: Any = Pauses()
    descriptor: Any = message.DESCRIPTOR
    raw = message.SerializeToString() if raw is None else raw
    asyncio.run(MessageShape(limits, work).check(raw, descriptor))
    return int(work.count)


def one(pods: int = 0, items: int = 0) -> scoring_pb2.ScoreRequest:
    request = scoring_pb2.ScoreRequest(model="m", pods=["p"] * pods)
    request.prompt.packed_token_ids = bytes(300)
    for _ in range(items):
        request.prompt.multimodal_items.add(hash="h")
    return request


def test_a_message_at_all_limits_passes() -> None:
    check(scoring_pb2.ScoreManyRequest(requests=[one(pods=4, items=5)] * 3))


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        (scoring_pb2.ScoreManyRequest(requests=[one()] * 4), "prompts"),
        (scoring_pb2.ScoreManyRequest(requests=[one(), one(pods=5)]), "pods"),
        (scoring_pb2.ScoreManyRequest(requests=[one(), one(items=6)]), "multimodal_items"),
        (one(pods=5), "pods"),
        (one(items=6), "multimodal_items"),
        (
            compat.RenderChatCompletionRequest(messages=[compat.ChatMessage(role="user")] * 7),
            "json_values",
        ),
        (
            compat.RenderChatCompletionRequest(
                messages=[compat.ChatMessage(content_parts=[compat.ContentPart()] * 7)]
            ),
            "json_values",
        ),
        (
            compat.ChatTemplateRequest(
                tools=[
                    compat.ToolDescription(
                        tool={
                            "a": compat.Value(
                                list_value=compat.ListValue(values=[compat.Value()] * 7)
                            )
                        }
                    )
                ]
            ),
            "json_values",
        ),
    ],
)
def test_a_message_beyond_a_limit_is_refused_by_the_limit_s_name(
    message: Message, limit: str
) -> None:
    with pytest.raises(TooLargeError) as raised:
        check(message)
    assert raised.value.limit == limit


def test_counting_stops_at_the_limit() -> None:
    """So its cost does not grow with the message."""
    message = one(pods=1_000_000)
    limits = LimitsSection(pods=10_000)
    work: Any = Pauses()
    descriptor: Any = message.DESCRIPTOR
    shape = MessageShape(limits, work)
    with pytest.raises(TooLargeError):
        asyncio.run(shape.check(message.SerializeToString(), descriptor))
    assert shape.fields <= 10_010


def test_fields_that_the_message_does_not_have_are_bounded_too() -> None:
    with pytest.raises(TooLargeError, match="more than 131072 fields"):
        check(one(), b"\x78\x01" * 1_000_000)


def test_counting_pauses_now_and_then_but_not_for_a_single_prompt() -> None:
    assert check(one(pods=4, items=5)) == 0
    assert check(one(), b"\x78\x01" * 10_000) > 5


def test_token_ids_are_skipped_as_a_whole() -> None:
    request = scoring_pb2.ScoreRequest()
    request.prompt.token_ids.ids.extend(range(1_000_000))
    work: Any = Pauses()
    descriptor: Any = request.DESCRIPTOR
    shape = MessageShape(LIMITS, work)
    asyncio.run(shape.check(request.SerializeToString(), descriptor))
    assert shape.fields == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"\x1a",
        b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x12\xff\x01\x22",
        b"\x1f",
        b"\x0a\x02\x12\x7f" + bytes(1000),
    ],
)
def test_malformed_bytes_are_left_to_the_decoder(raw: bytes) -> None:
    check(scoring_pb2.ScoreManyRequest(), raw)
    check(one(), raw)


LONG = 70_000  # bytes


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("[" + "1," * LONG, True),
        ('{"a": "' + "," * LONG + '"}', False),
        ('["' + '\\"[,' * LONG + '"]', False),
        ('["' + "é," * LONG + '", [[[[[[]]]]]]]', True),
        ('"' + "," * LONG, False),
    ],
)
def test_a_long_json_text_of_too_many_values_is_not_decoded(text: str, is_refused: bool) -> None:
    request = scoring_pb2.ScoreRequest(model="m")
    request.prompt.chat_completion = text
    raw = request.SerializeToString()
    check(request, raw[:-1])  # cut off: decoding says so
    if not is_refused:
        check(request)
        return
    with pytest.raises(TooLargeError, match="chat_completion: the JSON of the request has more"):
        check(request)
