"""Requests of llm-d's tokenization service become prompts."""

from __future__ import annotations

import json

import pytest
from kvatlas.compat import tokenization_pb2 as compat

from service.config import LimitsSection
from service.rpc.errors import InvalidRequestError
from service.rpc.llmd.prompts import chat_prompt, completion_prompt, older_chat_prompt, text_prompt
from service.rpc.model_names import ModelNames
from service.rpc.prompts import PromptReader
from tokenization import ChatCompletion, Completion, ModelFiles, Text, Tokenizers

READER = PromptReader(Tokenizers(ModelFiles()), LimitsSection(), ModelNames({}, bool))


def test_a_text_declines_special_tokens_by_default() -> None:
    request = compat.TokenizeRequest(input="x")
    assert text_prompt(request, READER) == Text("x", add_special_tokens=False)
    request.add_special_tokens = True
    assert text_prompt(request, READER) == Text("x", add_special_tokens=True)


def test_a_prompt_becomes_a_completion() -> None:
    request = compat.RenderCompletionRequest(prompt="x")
    assert completion_prompt(request, READER) == Completion({"prompt": "x"})


def test_a_chat_becomes_a_chat_completion() -> None:
    image = compat.ContentPart(type="image_url", image_url=compat.ImageUrl(url="u"))
    request = compat.RenderChatCompletionRequest(
        messages=[
            compat.ChatMessage(role="user", content="a"),
            compat.ChatMessage(
                role="user", content_parts=[compat.ContentPart(type="text", text="b"), image]
            ),
            compat.ChatMessage(role="assistant", tool_calls_json="[1]"),
        ],
        tools_json="[2]",
        chat_template="t",
        chat_template_kwargs='{"mood": "good"}',
        add_generation_prompt=False,
        continue_final_message=True,
    )
    parts = [{"type": "text", "text": "b"}, {"type": "image_url", "image_url": {"url": "u"}}]
    assert chat_prompt(request, READER) == ChatCompletion(
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "user", "content": parts},
                {"role": "assistant", "tool_calls": [1]},
            ],
            "tools": [2],
            "chat_template": "t",
            "chat_template_kwargs": {"mood": "good"},
            "add_generation_prompt": False,
            "continue_final_message": True,
        }
    )


def test_a_chat_leaves_out_the_fields_that_are_not_set() -> None:
    prompt = chat_prompt(compat.RenderChatCompletionRequest(), READER)
    assert prompt.body == {"messages": [], "continue_final_message": False}


def test_an_older_chat_has_its_values_as_json_would() -> None:
    value = compat.Value
    request = compat.ChatTemplateRequest(
        conversation_turns=[compat.ConversationTurn()],
        chat_template_kwargs={
            "z": value(number_value=1),
            "a": value(number_value=1.5),
            "b": value(list_value=compat.ListValue(values=[value(bool_value=True)])),
            "c": value(),
        },
    )
    arguments = older_chat_prompt(request, READER).body["chat_template_kwargs"]
    assert json.dumps(arguments) == '{"a": 1.5, "b": [true], "c": null, "z": 1}'


def test_an_older_chat_must_be_one_conversation() -> None:
    for count in (0, 2):
        turns = [compat.ConversationTurn()] * count
        with pytest.raises(InvalidRequestError, match="conversation_turns"):
            older_chat_prompt(compat.ChatTemplateRequest(conversation_turns=turns), READER)
