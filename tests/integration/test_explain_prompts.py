"""ExplainService: what the tokenizer and the template made of a request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from kvatlas.v1 import scoring_pb2
from support.models.trained import TEXT, write_tokenizer
from support.services.explained import explain
from support.services.one_pod import MODEL, Pods, block_stored, service_with_pod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kvatlas.v1 import explain_pb2

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}> {{ m.content }}\n{% endfor %}{{ style }}"
    "{% if add_generation_prompt %}assistant> {% endif %}"
)
MESSAGES = [{"role": "user", "content": TEXT[0]}]


@pytest.fixture
async def pods(tmp_path: Path) -> AsyncIterator[Pods]:
    """A pod of a model with a chat template."""
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    models = [{"name": MODEL, "tokenizer": str(tmp_path)}]
    async with service_with_pod(models=models) as (service, publisher):
        pods = Pods(service, publisher)
        await pods.publish(block_stored(list(range(16))))
        yield pods


async def explained(pods: Pods, **prompt: Any) -> explain_pb2.ExplainResponse:
    fields: dict[str, Any] = {
        k: v if isinstance(v, str) else json.dumps(v) for k, v in prompt.items()
    }
    salt = fields.pop("cache_salt", "")
    request = scoring_pb2.ScoreRequest(
        model=MODEL, prompt=scoring_pb2.Prompt(**fields), cache_salt=salt
    )
    return await explain(pods.service.channel, request)


def unused(answer: explain_pb2.ExplainResponse) -> dict[str, str]:
    return {field.field: field.reason for field in answer.unused_fields}


async def test_the_rendered_text_of_a_chat_is_shown(pods: Pods) -> None:
    prompt = (await explained(pods, chat_completion={"messages": MESSAGES})).prompt
    assert prompt.text == f"user> {TEXT[0]}\nassistant> "
    assert prompt.text_characters == len(prompt.text)
    assert (prompt.input, prompt.template) == ("chat_completion", "default")
    assert prompt.encoder in ("tokenizers", "fastokens")
    assert prompt.tokenizer.endswith("/tokenizer.json")
    assert not prompt.added_token_ids


async def test_the_special_tokens_of_a_text_are_shown(pods: Pods) -> None:
    text, completion = [
        (await explained(pods, **prompt)).prompt
        for prompt in ({"text": TEXT[0]}, {"completion": {"prompt": TEXT[0]}})
    ]
    plain = await explained(pods, completion={"prompt": TEXT[0], "add_special_tokens": False})
    added = len(text.added_token_ids)
    assert (text.text, text.template) == (TEXT[0], "")
    assert text.added_token_ids == completion.added_token_ids
    assert text.total_tokens >= plain.prompt.total_tokens + added
    assert not plain.prompt.added_token_ids


async def test_a_request_to_messages_is_explained(pods: Pods) -> None:
    body = {"max_tokens": 10, "messages": MESSAGES, "system": "Be brief."}
    prompt = (await explained(pods, messages=body)).prompt
    assert prompt.text.startswith("system> Be brief.")
    assert (prompt.input, prompt.template) == ("messages", "default")


async def test_fields_of_a_body_that_do_not_matter_are_named(pods: Pods) -> None:
    body = {
        "model": "an-adapter",
        "messages": MESSAGES,
        "temperature": 0.5,
        "cache_salt": "of the body",
        "chat_template_kwargs": {"style": "short", "styl": "x"},
    }
    answer = await explained(pods, chat_completion=body, cache_salt="of the call")
    found = unused(answer)
    assert set(found) == {
        f"prompt.chat_completion.{name}"
        for name in ("model", "temperature", "cache_salt", "chat_template_kwargs.styl")
    }
    assert "lora_name" in found["prompt.chat_completion.model"]
    assert answer.prompt.salt_source == "cache_salt"
    assert b"of the body" not in answer.SerializeToString()


async def test_the_salt_of_a_body_is_said_to_be_there(pods: Pods) -> None:
    body = {"messages": MESSAGES, "cache_salt": "secret"}
    answer = await explained(pods, chat_completion=body)
    assert (answer.prompt.salt_source, unused(answer)) == ("prompt", {})


async def test_of_a_long_text_the_beginning_is_shown(pods: Pods) -> None:
    answer = await explained(pods, text="word " * 10_000)
    assert (len(answer.prompt.text), answer.prompt.text_characters) == (8192, 50_000)
    assert answer.is_cut


async def test_the_time_of_each_step_is_told(pods: Pods) -> None:
    answer = await explained(pods, text=TEXT[0])
    assert [step.step for step in answer.steps] == [
        *("read", "tokenize", "keys", "match", "explain", "suspects"),
    ]
    assert all(step.microseconds > 0 for step in answer.steps)
