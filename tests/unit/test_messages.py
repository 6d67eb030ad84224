"""What an engine does to the messages of a request before its template sees them."""

from __future__ import annotations

from typing import Any

import pytest

from tokenization import ChatError, UnsupportedChatError
from tokenization.chat.messages import template_messages
from tokenization.chat.template import ChatTemplate

TEXTS = ChatTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
PARTS = ChatTemplate(
    "{% for m in messages[1:] | list %}{% for p in m['content'] %}{{ p.text }}{% endfor %}"
    "{% endfor %}{{ 'developer' == messages[0].role }}"
)


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def one(template: ChatTemplate, **message: Any) -> dict[str, Any]:
    (found,) = template_messages([message], template)
    return found


def test_a_template_that_loops_over_contents_wants_parts() -> None:
    assert TEXTS.wants == "string"
    assert PARTS.wants == "openai"
    loops = "{% set rest = messages[1:] %}{% for m in rest %}{% for p in m.content %}{% endfor %}"
    assert ChatTemplate(loops + "{% endfor %}").wants == "openai"
    spaced = "{% set ns = namespace(rest=messages) %}{% for m in ns.rest %}"
    assert (
        ChatTemplate(spaced + "{% for p in m.content %}{% endfor %}{% endfor %}").wants == "openai"
    )
    macro = "{% macro show(c, n=1) %}{% for p in c %}{% endfor %}{% endmacro %}"
    for call, wants in (
        ("m.content", "openai"),
        ("c=m['content']", "openai"),
        ("m.calls", "string"),
    ):
        loop = "{% for m in messages %}{{ show(" + call + ") }}{% endfor %}"
        assert ChatTemplate(macro + loop).wants == wants
    kept = "{% for m in messages %}{% set content = m.content %}{% for p in content %}{% endfor %}"
    assert ChatTemplate(kept + "{% endfor %}").wants == "openai"
    pairs = "{% for a, b in messages %}{% for p in a.content %}{% endfor %}{% endfor %}"
    assert ChatTemplate(pairs).wants == "string"
    joined = "{% for m in messages %}{{ m.content | join }}{% for t in m.calls %}{% endfor %}"
    assert ChatTemplate(joined + "{% endfor %}").wants == "string"


def test_content_parts_are_joined_where_a_template_wants_text_and_empty_ones_dropped() -> None:
    content = [text("a"), text(""), {"type": "input_text", "text": "b"}, "c"]
    assert one(TEXTS, role="user", content=content) == {"role": "user", "content": "a\nb\nc"}
    refusal = [{"type": "refusal", "refusal": "no"}, {"type": "thinking", "thinking": "hm"}]
    assert one(TEXTS, role="assistant", content=refusal)["content"] == "no\nhm"


def test_text_is_wrapped_where_a_template_wants_parts_and_a_part_s_other_fields_are_kept() -> None:
    assert one(PARTS, role="user", content="a")["content"] == [text("a")]
    content = [text("", cache_control={"type": "ephemeral"}), {"text": "b", "type": "text"}]
    found = one(PARTS, role="user", content=content)["content"]
    assert found == content
    assert [list(part) for part in found] == [["type", "text", "cache_control"], ["type", "text"]]
    assert one(PARTS, role="assistant", content=None)["content"] == []
    odd = [{"type": "text", "text": "a", "uuid": "u", "name": "n"}, "b"]
    assert one(PARTS, role="user", content=odd)["content"] == [text("a"), text("b")]


@pytest.mark.parametrize("template", [TEXTS, PARTS])
def test_a_tool_s_answer_is_always_one_text(template: ChatTemplate) -> None:
    found = one(template, role="tool", content=[text("a"), text("b")], tool_call_id="1", name="f")
    assert found == {"role": "tool", "content": "a\nb", "tool_call_id": "1", "name": "f"}
    assert one(template, role="tool", content="a")["content"] == "a"


def test_references_to_tools_are_left_to_the_template() -> None:
    reference = {"type": "tool_reference", "name": "f"}
    assert one(PARTS, role="tool", content=[reference])["content"] == [reference]
    assert one(TEXTS, role="tool", content=[reference, text("a")])["content"] == "f\na"


def test_unknown_fields_of_messages_are_dropped_and_unknown_roles_are_not() -> None:
    assert one(TEXTS, role="critic", content="a", foo=1, name=2, task="t", function_call={}) == {
        "role": "critic",
        "content": "a",
        "task": "t",
    }


def test_a_message_s_content_may_be_missing_but_only_an_assistant_s_may_be_null() -> None:
    assert one(TEXTS, role="user")["content"] == ""
    assert one(TEXTS, role="assistant", content=None)["content"] == ""
    for role in ("user", "system", "tool", "critic"):
        with pytest.raises(ChatError, match="null"):
            one(TEXTS, role=role, content=None)


def test_reasoning_of_a_message_has_both_names() -> None:
    for name in ("reasoning", "reasoning_content"):
        found = one(TEXTS, role="assistant", content="a", **{name: "because"})
        assert found["reasoning"] == found["reasoning_content"] == "because"
    assert "reasoning" not in one(TEXTS, role="user", content="a", reasoning="because")


@pytest.mark.parametrize(
    ("arguments", "decoded"),
    [('{"b": 1, "a": 2}', {"b": 1, "a": 2}), ("", {}), ("[1]", {}), ("{", {}), ("null", {})],
)
def test_arguments_of_tool_calls_are_decoded(arguments: str, decoded: dict[str, Any]) -> None:
    call = {
        "index": 0,
        "type": "function",
        "function": {"name": "f", "more": 1, "arguments": arguments},
        "id": "1",
    }
    (found,) = one(TEXTS, role="assistant", tool_calls=[call])["tool_calls"]
    assert found["function"]["arguments"] == decoded
    assert list(found) == ["id", "function", "type", "index"]
    assert list(found["function"]) == ["arguments", "name", "more"]


def test_an_empty_list_of_tool_calls_counts_as_none() -> None:
    nothings: list[Any] = [[], None]
    for nothing in nothings:
        assert "tool_calls" not in one(TEXTS, role="assistant", content="a", tool_calls=nothing)


def test_messages_that_the_engine_would_refuse_are_refused() -> None:
    decoded = {"function": {"name": "f", "arguments": {}}}
    refused: list[Any] = [
        "no list",
        [],
        ["no object"],
        [{"content": "no role"}],
        [{"role": "user", "content": 1}],
        [{"role": "user", "content": [{"text": "no type"}]}],
        [{"role": "user", "content": [{"type": "text", "text": 1}]}],
        [{"role": "assistant", "tool_calls": [decoded]}],
        [{"role": "assistant", "tool_calls": [{"type": "x", "function": {"name": "f"}}]}],
        [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}],
    ]
    for messages in refused:
        with pytest.raises(ChatError):
            template_messages(messages, TEXTS)
    image = {"type": "image_url", "image_url": {"url": "http://x"}}
    with pytest.raises(UnsupportedChatError, match=r"messages\[0\].content\[0\].*image_url"):
        template_messages([{"role": "user", "content": [image]}], TEXTS)


def test_a_developer_message_is_a_system_message_where_the_template_knows_no_developer() -> None:
    developer = {"role": "developer", "content": "a", "tools": [1]}
    assert one(TEXTS, **developer) == {"role": "system", "content": "a"}
    assert one(PARTS, **developer)["role"] == "developer"
    assert one(PARTS, **developer)["tools"] == [1]
    said = [
        {"role": "user", "content": "u"},
        {"role": "system", "content": [text("b"), text("c")]},
        developer,
        {"role": "system", "content": ""},
    ]
    assert template_messages(said, TEXTS) == [
        {"role": "system", "content": "b\nc\n\na"},
        {"role": "user", "content": "u"},
    ]
    systems = said[:2]  # nothing is moved without a developer
    assert [each["role"] for each in template_messages(systems, TEXTS)] == ["user", "system"]


def test_a_billing_header_is_no_part_of_the_system_message() -> None:
    line = "x-anthropic-billing-header: 1"
    assert one(TEXTS, role="system", content=f"{line}\nrest\n{line}")["content"] == f"rest\n{line}"
    assert one(TEXTS, role="system", content=[text(line), text("a")])["content"] == "a"
    assert one(TEXTS, role="user", content=line)["content"] == line
