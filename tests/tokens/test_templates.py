"""Real chat templates, rendered here and by Hugging Face's transformers, over random chats."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from support.models.fetched import chat_templates
from transformers.utils.chat_template_utils import render_jinja_template

from tokenization import ChatError
from tokenization.chat.template import ChatTemplate

WORDS = ["hello", "naïve ☃", "<|im_end|>", "{{x}}", "</think>", "\n\n", " a ", "東京", " f():\n"]
TOOL = {
    "type": "function",
    "function": {
        "name": "f0",
        "description": "d <&>'",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
    },
}
OWN = """
{%- macro show(content, indent=none) -%}
  {%- if content is string -%}{{ content | trim }}
  {%- elif content is iterable and content is not mapping -%}
    {%- for part in content if part.type == 'text' -%}{{ loop.index0 }}:{{ part['text'] }}
    {%- endfor -%}
  {%- else -%}{{ content | tojson(indent=indent) }}
  {%- endif -%}
{%- endmacro -%}
{{- bos_token }}{{ strftime_now('%Y') }}
{%- set ns = namespace(rest=messages, seen=0) %}
{%- if messages[0].role in ('system', 'developer') %}
    {%- set system = show(messages[0].content) %}
    {%- set ns.rest = messages[1:] %}
{%- endif %}
<|im_start|>system
{{ system | default('none', true) | upper }}
{% for tool in tools or [] %}
{{ tool | tojson }}{{ tool.function | tojson(indent=2, sort_keys=true) }}
{{ tool | tojson(separators=(',', ':')) }}
{% endfor %}
{%- for document in documents or [] %}{{ document.items() | list }}{% endfor %}
{%- for m in ns.rest %}
    {%- if m.role == 'user' and loop.previtem is defined and loop.previtem.role == 'user' %}
        {{- raise_exception('two users: ' ~ loop.index) }}
    {%- endif %}
    {%- if not m.content and not m.tool_calls %}{% continue %}{% endif %}
    {%- if ns.seen > 9 %}{% break %}{% endif %}
    {%- set ns.seen = ns.seen + 1 %}
<|im_start|>{{ m['role'] }}
    {%- if m.role == 'assistant' %}
        {%- generation %}{% set inside = 'x' %}{{ m.reasoning_content or '' }}
            {{- show(m.content) }}
            {%- for call in m.tool_calls or [] %}
                {%- set call = call.function if call.function is defined else call %}
                {{- {'name': call.name, 'arguments': call.arguments} | tojson }}
            {%- endfor %}
        {%- endgeneration %}
        {{- inside | default('unset') }}
    {%- else %}{{ show(m.content) }}{% endif %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{{ '<think>' if enable_thinking is defined and enable_thinking else '' }}{% endif %}
"""
DOCUMENT = {"title": "t", "text": "x < y"}


class Chats:
    def __init__(self, seed: str) -> None:
        self.source = random.Random(seed)

    def text(self) -> str:
        return "".join(self.source.choices(WORDS, k=self.source.randrange(5)))

    def content(self) -> Any:
        parts = [{"type": "text", "text": self.text()} for _ in range(self.source.randrange(3))]
        return self.source.choice([self.text(), self.text(), parts])

    def messages(self) -> list[dict[str, Any]]:
        source = self.source
        messages: list[dict[str, Any]] = []
        if source.random() < 0.5:
            role = source.choice(["system", "system", "developer"])
            messages.append({"role": role, "content": self.content()})
        for _ in range(source.randrange(1, 4)):
            messages.append({"role": "user", "content": self.content()})
            answer: dict[str, Any] = {"role": "assistant", "content": self.content()}
            if source.random() < 0.3:
                answer["reasoning_content"] = self.text()
            messages.append(answer)
            if source.random() < 0.3:
                answer["tool_calls"] = [self.call(at) for at in range(source.randrange(1, 3))]
                for at in range(len(answer["tool_calls"])):
                    tool = {"tool_call_id": f"call{at:05}", "name": f"f{at}"}
                    messages.append({"role": "tool", **tool, "content": self.text()})
                messages.append({"role": "assistant", "content": self.text()})
        if source.random() < 0.5:
            messages.append({"role": "user", "content": self.text()})
        return messages

    def call(self, at: int) -> dict[str, Any]:
        function = {"name": f"f{at}", "arguments": {"q": self.text(), "n": 1}}
        return {"id": f"call{at:05}", "type": "function", "function": function}

    def variant(self) -> dict[str, Any]:
        source = self.source
        prompts = source.random() < 0.5
        return {
            "tools": source.choice([None, [TOOL]]),
            "documents": source.choice([None, None, [DOCUMENT]]),
            "add_generation_prompt": prompts,
            "continue_final_message": not prompts and source.choice([False, False, True]),
        }


def compare(name: str, text: str, count: int) -> int:
    """How many of `count` chats both rendered; the others both refused."""
    chats = Chats(name)
    template = ChatTemplate(text)
    rendered = 0
    for _ in range(count):
        messages, variant = chats.messages(), chats.variant()
        variables: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>"}
        if chats.source.random() < 0.5:
            variables["enable_thinking"] = chats.source.choice([True, False])
        before = copy.deepcopy(messages)
        try:
            result: Any = render_jinja_template(
                [copy.deepcopy(messages)], chat_template=text, **variant, **variables
            )
        except Exception:  # noqa: BLE001 - whatever a template may raise
            with pytest.raises(ChatError):
                template.render(messages, variables=variables, **variant)
        else:
            found = template.render(messages, variables=variables, **variant)
            assert [found] == result[0], (name, messages, variant)
            rendered += 1
        assert messages == before
    return rendered


def test_chats_are_rendered_byte_for_byte_as_by_transformers() -> None:
    templates = chat_templates()
    rendered = {name: compare(name, text, 12) for name, text in templates.items()}
    assert len(templates) >= 70
    assert sum(rendered.values()) > len(templates) * 6


def test_the_tests_own_template_uses_every_feature_of_the_real_ones() -> None:
    """Without any network."""
    assert compare("own", OWN, 300) > 100


@pytest.mark.soak
def test_many_chats_are_rendered_as_by_transformers() -> None:
    for name, text in chat_templates().items():
        compare(name, text, 1000)
