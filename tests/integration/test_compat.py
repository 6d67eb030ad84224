"""The tokenizer service of llm-d-kv-cache, as its callers meet it, over TCP and a Unix socket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from kvatlas.compat import tokenization_pb2 as compat
from kvatlas.compat.tokenization_pb2_grpc import TokenizationServiceStub
from support.models.trained import TEXT, write_tokenizer
from support.services.running import local_configuration, running_service

MODEL = "sim/model"
TEMPLATE = (
    "{{ tools | tojson }}{{ documents | tojson }}{{ mood }}{% for m in messages %}{{ m.role }}> "
    "{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}</s>{% endfor %}"
    "{% if add_generation_prompt %}assistant> {% endif %}"
)
TOOL = {"type": "function", "function": {"name": "f", "description": None, "parameters": None}}


@pytest.fixture(params=["tcp", "unix"])
def call(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A function that calls a method of a running service."""
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    address = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/tokenizer.sock"
    settings = {
        "models": [{"name": MODEL, "tokenizer": str(tmp_path)}],
        "grpc": {"listen": [address], "drain_seconds": 0.1},
        "limits": {"text_bytes": 4000},
    }
    with asyncio.Runner() as runner:
        service = running_service(local_configuration(**settings))
        started = runner.run(service.__aenter__())
        stub = TokenizationServiceStub(started.channel)

        async def ask(method: str, message: Any) -> Any:
            return await getattr(stub, method)(message)

        yield lambda method, message: runner.run(ask(method, message))
        runner.run(service.__aexit__(None, None, None))


@pytest.fixture
def reference(tmp_path: Path) -> tokenizers.Tokenizer:
    found = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    found.no_truncation()
    return found


def plain(reference: tokenizers.Tokenizer, text: str) -> list[int]:
    ids: list[int] = reference.encode(text, add_special_tokens=False).ids
    return ids


def test_llmd_s_tokenize_answers_ids_and_offsets(
    call: Any, reference: tokenizers.Tokenizer
) -> None:
    for special in (True, False):
        expected = reference.encode(TEXT[4], add_special_tokens=special)
        request = compat.TokenizeRequest(
            input=TEXT[4], model_name=MODEL, add_special_tokens=special
        )
        answer = call("Tokenize", request)
        assert answer.success
        assert list(answer.input_ids) == expected.ids
        pairs = list(answer.offset_pairs)
        assert list(zip(pairs[::2], pairs[1::2], strict=True)) == expected.offsets


def test_llmd_s_render_completion_answers_ids(call: Any, reference: tokenizers.Tokenizer) -> None:
    assert call("InitializeTokenizer", compat.InitializeTokenizerRequest(model_name=MODEL)).success
    request = compat.RenderCompletionRequest(model_name=MODEL, prompt=TEXT[0])
    first, second = (call("RenderCompletion", request) for _ in range(2))
    assert first.success
    assert list(first.token_ids) == reference.encode(TEXT[0]).ids
    assert first.request_id
    assert first.request_id != second.request_id


def test_llmd_s_render_chat_answers_the_chat_s_ids(
    call: Any, reference: tokenizers.Tokenizer
) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    request = compat.RenderChatCompletionRequest(
        model_name=MODEL,
        messages=[
            compat.ChatMessage(
                role="user",
                content_parts=[compat.ContentPart(type="text", text=each) for each in "ab"],
            ),
            compat.ChatMessage(role="assistant", tool_calls_json=json.dumps(calls)),
            compat.ChatMessage(role="tool", content="c"),
        ],
        tools_json=json.dumps([TOOL]),
        chat_template_kwargs='{"mood": "good"}',
    )
    shown = json.dumps([TOOL])
    called = '[{"id": "1", "function": {"arguments": {}, "name": "f"}, "type": "function"}]'
    text = f"{shown}nullgooduser> a\nb</s>assistant> {called}</s>tool> c</s>"
    answer = call("RenderChatCompletion", request)
    assert answer.error_message == ""
    assert list(answer.token_ids) == plain(reference, text + "assistant> ")
    request.add_generation_prompt = False
    answer = call("RenderChatCompletion", request)
    assert list(answer.token_ids) == plain(reference, text)
    assert not answer.features.mm_hashes


def test_llmd_s_older_form_of_a_chat_is_rendered(call: Any) -> None:
    function = compat.StructValue(fields={"name": compat.Value(string_value="f")})
    request = compat.ChatTemplateRequest(
        model_name=MODEL,
        conversation_turns=[
            compat.ConversationTurn(messages=[compat.ChatMessage(role="user", content="a")])
        ],
        tools=[
            compat.ToolDescription(
                tool={
                    "type": compat.Value(string_value="function"),
                    "function": compat.Value(struct_value=function),
                }
            )
        ],
        documents=[
            compat.Document(
                document={
                    "a": compat.Value(number_value=1),
                    "b": compat.Value(number_value=1.5),
                    "c": compat.Value(bool_value=True),
                    "d": compat.Value(
                        list_value=compat.ListValue(values=[compat.Value(string_value="x")])
                    ),
                }
            )
        ],
        chat_template_kwargs={"mood": compat.Value(string_value="good")},
    )
    document = '[{"a": 1, "b": 1.5, "c": true, "d": ["x"]}]'
    answer = call("RenderChatTemplate", request)
    assert answer.error_message == ""
    assert answer.rendered_prompt == f"{json.dumps([TOOL])}{document}gooduser> a</s>"
    request.add_generation_prompt = True
    assert call("RenderChatTemplate", request).rendered_prompt.endswith("</s>assistant> ")


def test_an_answer_to_llmd_says_what_is_wrong_with_the_request(call: Any) -> None:
    image = compat.ContentPart(type="image_url", image_url=compat.ImageUrl(url="http://x"))
    message = compat.ChatMessage(role="user", content="a")
    chat = compat.RenderChatCompletionRequest
    cases: list[tuple[str, Any, str]] = [
        ("Tokenize", compat.TokenizeRequest(input="a"), "model_name is not set"),
        ("Tokenize", compat.TokenizeRequest(model_name=MODEL), "empty"),
        ("InitializeTokenizer", compat.InitializeTokenizerRequest(model_name="x"), "no tokenizer"),
        ("RenderCompletion", compat.RenderCompletionRequest(model_name=MODEL), "empty"),
        ("RenderChatCompletion", chat(model_name=MODEL), "messages"),
        (
            "RenderChatCompletion",
            chat(model_name=MODEL, messages=[message], tools_json="{"),
            "tools_json is not JSON",
        ),
        (
            "RenderChatCompletion",
            chat(model_name=MODEL, messages=[message], chat_template="x"),
            "not trusted",
        ),
        (
            "RenderChatCompletion",
            chat(
                model_name=MODEL,
                messages=[compat.ChatMessage(role="user", content_parts=[image])],
            ),
            "image_url",
        ),
        (
            "RenderChatTemplate",
            compat.ChatTemplateRequest(
                model_name=MODEL, conversation_turns=[compat.ConversationTurn()] * 2
            ),
            "conversation_turns",
        ),
    ]
    for method, request, words in cases:
        answer = call(method, request)
        assert not answer.success
        assert words in answer.error_message


def test_a_request_of_llmd_s_is_bounded_as_any_other(call: Any) -> None:
    long = "a" * 4001
    turn = compat.ConversationTurn(messages=[compat.ChatMessage(role="user", content=long)])
    part = compat.ContentPart(type="text", text=long)
    requests: list[tuple[str, Any]] = [
        ("Tokenize", compat.TokenizeRequest(model_name=MODEL, input=long)),
        ("RenderCompletion", compat.RenderCompletionRequest(model_name=MODEL, prompt=long)),
        (
            "RenderChatCompletion",
            compat.RenderChatCompletionRequest(
                model_name=MODEL, messages=[compat.ChatMessage(role="user", content_parts=[part])]
            ),
        ),
        (
            "RenderChatCompletion",
            compat.RenderChatCompletionRequest(
                model_name=MODEL,
                messages=[compat.ChatMessage(role="user", content="a")] * 1000,
            ),
        ),
        (
            "RenderChatTemplate",
            compat.ChatTemplateRequest(model_name=MODEL, conversation_turns=[turn]),
        ),
    ]
    for method, request in requests:
        answer = call(method, request)
        assert not answer.success
        assert "limit of 4000 bytes" in answer.error_message
