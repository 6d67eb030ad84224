"""What of a chat request bears on its text, and which template it is rendered with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tokenization import ChatError, ChatOptions, TemplateBrokenError
from tokenization.chat.chat_completion import ChatTemplates, render_chat

SHOWS = (
    "{{ bos_token }}{{ tools | tojson }}|{{ documents | tojson }}|{{ add_generation_prompt }}|"
    "{{ enable_thinking }}|{{ reasoning_effort }}|{{ mood }}|"
    "{% for m in messages %}{{ m.content | trim }};{% endfor %}"
)
TEMPLATES = ChatTemplates({"default": SHOWS}, {"bos_token": "<s>", "eos_token": "</s>"})
TOOL = {"type": "function", "function": {"name": "f"}}
SENT = {"type": "function", "function": {"name": "f", "description": None, "parameters": None}}


def render(options: ChatOptions | None = None, **request: Any) -> list[str]:
    """The parts of the template above."""
    request = {"messages": [{"role": "user", "content": "hi"}], **request}
    return render_chat(request, TEMPLATES, options or ChatOptions()).split("|")


def test_chat_options_default_to_the_engine_s() -> None:
    assert render() == ["<s>null", "null", "True", "", "", "", "hi;"]


def test_template_arguments_of_a_request_override_the_server_s() -> None:
    options = ChatOptions(arguments={"mood": "good", "bos_token": "<t>"})
    assert render(options)[5] == "good"
    assert render(options)[0] == "<t>null"
    assert render(options, chat_template_kwargs={"mood": "bad"})[5] == "bad"
    own = {"add_generation_prompt": False, "documents": [1]}
    assert render(chat_template_kwargs=own)[1:3] == ["[1]", "True"]
    assert render(chat_template_kwargs=own, documents=[2])[1] == "[2]"
    for nothing in (None, "auto"):
        assert render(options, chat_template_kwargs={"mood": nothing})[5] == "good"


def test_a_reasoning_effort_says_whether_to_think() -> None:
    assert render(reasoning_effort="low")[3:5] == ["True", "low"]
    assert render(reasoning_effort="none")[3:5] == ["False", "none"]
    own = {"enable_thinking": False}
    assert render(reasoning_effort="low", chat_template_kwargs=own)[3] == "False"
    assert render(ChatOptions(efforts={"low": "L"}), reasoning_effort="low")[4] == "L"


def test_tools_reach_the_template_in_full_and_in_order() -> None:
    shown = render(tools=[{"function": {"strict": True, "x": 1, "name": "f"}}])[0]
    expected = {**SENT, "function": {**SENT["function"], "strict": True}}  # type: ignore[dict-item]
    assert shown == "<s>" + json.dumps([expected])
    assert render(tools=[TOOL], tool_choice="none")[0] == "<s>" + json.dumps([SENT])
    options = ChatOptions(exclude_tools_when_none=True)
    assert render(options, tools=[TOOL], tool_choice="none")[0] == "<s>null"
    assert render(options, tools=[TOOL], tool_choice="auto")[0] == "<s>" + json.dumps([SENT])
    assert render(tools=[TOOL], chat_template_kwargs={"tools": [7]})[0] == "<s>[7]"


@pytest.mark.parametrize(
    "request_",
    [
        {"tools": []},
        {"tools": [{"type": "function"}]},
        {"tools": [{**TOOL, "type": "retrieval"}]},
        {"tool_choice": "auto"},
        {"chat_template_kwargs": [1]},
        {"chat_template": SHOWS},
        {"chat_template_kwargs": {"chat_template": SHOWS}},
        {"continue_final_message": True},
        {"continue_final_message": True, "add_generation_prompt": True},
        {"messages": []},
        {},
    ],
)
def test_a_chat_that_the_engine_would_refuse_is_refused(request_: dict[str, Any]) -> None:
    messages = {"messages": [{"role": "user", "content": "hi"}]} if request_ else {}
    with pytest.raises(ChatError):
        render_chat({**messages, **request_}, TEMPLATES, ChatOptions())


def test_a_template_of_a_request_counts_if_it_is_trusted() -> None:
    trusting = ChatOptions(trust_request_template=True)
    assert render(trusting, chat_template="just {{ eos_token }}") == ["just </s>"]
    assert render(trusting, chat_template_kwargs={"chat_template": "this"}) == ["this"]
    with pytest.raises(TemplateBrokenError):
        render(trusting, chat_template="{% for %}")


def test_a_chat_template_can_be_chosen_by_name() -> None:
    several = ChatTemplates({"default": "plain", "tool_use": "tools", "rag": "rag"}, {})
    request: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    assert render_chat(request, several, ChatOptions()) == "plain"
    assert render_chat({**request, "tools": [TOOL]}, several, ChatOptions()) == "tools"
    assert render_chat(request, several, ChatOptions(template="rag")) == "rag"
    assert render_chat(request, several, ChatOptions(template="{{ 1 + 1 }}")) == "2"
    with pytest.raises(TemplateBrokenError, match="no chat template"):
        render_chat(request, ChatTemplates({}, {}), ChatOptions())


def test_the_last_message_may_be_continued() -> None:
    request = {
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "so  "}],
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
    keeps = ChatTemplates({"default": "{% for m in messages %}[{{ m.content }}]\n{% endfor %}"}, {})
    assert render_chat(request, keeps, ChatOptions()) == "[hi]\n[so  "
    assert render_chat(request, TEMPLATES, ChatOptions()).endswith("|hi;so")
    drops = ChatTemplates({"default": "{{ messages[0].content }}"}, {})
    with pytest.raises(ChatError, match="does not show"):
        render_chat(request, drops, ChatOptions())


def test_templates_are_in_a_sandbox() -> None:
    for evil in (
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception('no') }}",
    ):
        with pytest.raises(ChatError):
            render_chat(
                {"messages": [{"role": "user", "content": "hi"}]},
                ChatTemplates({"default": evil}, {}),
                ChatOptions(),
            )
