"""What an engine makes of a request in Anthropic's form."""

from __future__ import annotations

from typing import Any

import pytest

from tokenization import ChatError, UnsupportedChatError
from tokenization.chat.anthropic import takes_system_first_only, to_chat_completion

BILL = "x-anthropic-billing-header: 1"


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def test_a_conversation_with_tools_becomes_a_chat() -> None:
    result = {"type": "tool_result", "tool_use_id": "2", "content": [text("no"), text("way")]}
    request = {
        "system": [text(BILL), text("Be "), text("brief.")],
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm"},
                    {"type": "redacted_thinking", "data": "x"},
                    text("so"),
                    text(""),
                    {"type": "tool_use", "id": "1", "name": "f", "input": {"q": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    text("and?"),
                    text("well?"),
                    {"type": "tool_result", "tool_use_id": "1", "content": "yes"},
                    result,
                ],
            },
            {"role": "user", "content": [{**result, "content": None}]},
        ],
        "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any"},
        "cache_salt": "s",
        "max_tokens": 5,
    }
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"q": 1}'}}
    function: dict[str, Any] = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    function |= {"strict": None, "defer_loading": None}
    assert to_chat_completion(request) == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "so", "tool_calls": [call], "reasoning": "hm"},
            {"role": "tool", "tool_call_id": "1", "content": "yes"},
            {"role": "tool", "tool_call_id": "2", "content": "no\nway"},
            {"role": "user", "content": [text("and?"), text("well?")]},
            {"role": "tool", "tool_call_id": "2", "content": ""},
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
        "cache_salt": "s",
    }


def test_an_anthropic_system_block_stays_in_place_where_the_template_allows_it() -> None:
    request = {
        "system": "a",
        "messages": [
            {"role": "user", "content": "u"},
            {"role": "system", "content": [text("b"), text(BILL)]},
            {"role": "system", "content": BILL},
        ],
    }
    user = {"role": "user", "content": "u"}
    system = [{"role": "system", "content": said} for said in ("a", "b", "ab")]
    assert to_chat_completion(request)["messages"] == [system[0], user, system[1]]
    assert to_chat_completion(request, system_first=True)["messages"] == [system[2], user]
    strict = (
        "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
        "{{ raise_exception('no') }}{% endif %}{% endfor %}"
    )
    assert takes_system_first_only(strict)
    assert not takes_system_first_only("{{ messages }}")


@pytest.mark.parametrize(
    ("said", "effort"),
    [
        ({"thinking": {"type": "disabled"}}, "none"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1}}, None),
        ({"output_config": {"effort": "low"}}, "low"),
        ({"output_config": {"effort": "low"}, "thinking": {"type": "disabled"}}, "none"),
    ],
)
def test_anthropic_s_thinking_settings_become_a_reasoning_effort(
    said: dict[str, Any], effort: str | None
) -> None:
    assert to_chat_completion({"messages": [], **said}).get("reasoning_effort") == effort


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"messages": ["x"]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]},
        {"messages": [], "tools": [{}]},
        {"messages": [], "tools": {}},
        {"messages": [], "tools": [], "tool_choice": {"type": "x"}},
        {"messages": [], "system": 1},
    ],
)
def test_a_malformed_anthropic_request_is_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(ChatError):
        to_chat_completion(request_)


@pytest.mark.parametrize("kind", ["image", "document", "tool_addition"])
def test_anthropic_blocks_that_are_no_text_are_refused(kind: str) -> None:
    block = {"type": kind}
    inside = {"type": "tool_result", "content": [block]}
    for content in ([block], [inside]):
        with pytest.raises(UnsupportedChatError, match=kind):
            to_chat_completion({"messages": [{"role": "user", "content": content}]})
