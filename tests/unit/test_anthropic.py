"""What an engine makes of a request in Anthropic's form."""

from __future__ import annotations

from typing import Any

import pytest

from tokenization import ChatError, UnsupportedChatError
from tokenization.anthropic import chat_of


def test_a_conversation_with_tools_becomes_a_chat() -> None:
    request = {
        "system": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}],
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm"},
                    {"type": "text", "text": "so"},
                    {"type": "tool_use", "id": "1", "name": "f", "input": {"q": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "and?"},
                    {"type": "tool_result", "tool_use_id": "1", "content": "yes"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "2",
                        "content": [{"type": "text", "text": "no"}],
                    },
                ],
            },
        ],
        "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any"},
        "cache_salt": "s",
        "max_tokens": 5,
    }
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"q": 1}'}}
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    assert chat_of(request) == {
        "messages": [
            {"role": "system", "content": "Be\nbrief."},
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "so"}],
                "tool_calls": [call],
                "reasoning": "hm",
            },
            {"role": "tool", "tool_call_id": "1", "content": "yes"},
            {"role": "tool", "tool_call_id": "2", "content": "no"},
            {"role": "user", "content": [{"type": "text", "text": "and?"}]},
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
        "cache_salt": "s",
    }


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"messages": ["x"]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]},
        {"messages": [], "tools": [{}]},
        {"messages": [], "system": [{"type": "image"}]},
    ],
)
def test_what_makes_no_sense_is_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(ChatError):
        chat_of(request_)


def test_images_are_not_guessed() -> None:
    image = {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}
    with pytest.raises(UnsupportedChatError, match="image"):
        chat_of(image)
