"""Requests as they are sent to a model server, asked about as they are."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
import tokenizers
from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc, tokenization_pb2, tokenization_pb2_grpc
from support.models.trained import TEXT, write_tokenizer
from support.services.one_pod import MODEL, block_stored, frame, matched_blocks, service_with_pod
from support.services.running import RunningService, local_configuration, running_service

from tokenization import (
    Drop,
    ModelFiles,
    QueueLimits,
    Text,
    TokenizationLimits,
    Tokenizers,
    TokenizersBusyError,
)

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}> {{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant> {% endif %}"
)
CHAT = {"messages": [{"role": "system", "content": TEXT[1]}, {"role": "user", "content": TEXT[0]}]}
RENDERED = f"system> {TEXT[1]}</s>\nuser> {TEXT[0]}</s>\nassistant> "


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A model with a chat template."""
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    config = {"chat_template": "another", "eos_token": {"content": "</s>"}, "bos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def reference(files: Path) -> tokenizers.Tokenizer:
    found = tokenizers.Tokenizer.from_file(str(files / "tokenizer.json"))
    found.no_truncation()
    return found


def models(files: Path, **chat: Any) -> list[dict[str, Any]]:
    return [{"name": MODEL, "tokenizer": str(files), "chat": chat}]


async def tokenize(service: RunningService, **request: Any) -> tokenization_pb2.TokenizeResponse:
    stub = tokenization_pb2_grpc.TokenizationServiceStub(service.channel)
    answer = await stub.Tokenize(tokenization_pb2.TokenizeRequest(model=MODEL, **request))
    assert isinstance(answer, tokenization_pb2.TokenizeResponse)
    return answer


async def test_a_chat_is_matched_where_the_engine_has_cached_it(files: Path) -> None:
    ids = reference(files).encode(RENDERED, add_special_tokens=False).ids
    assert len(ids) >= 48
    async with service_with_pod(models=models(files)) as (service, pod):
        pod.send(frame(0, block_stored(ids[: len(ids) // 16 * 16])))
        await service.until_applied({("10.0.0.1:8000", 0): 0})
        request = scoring_pb2.ScoreRequest(model=MODEL)
        request.prompt.chat_completion = json.dumps(CHAT)
        assert await matched_blocks(service, request) == len(ids) // 16
        request.prompt.completion = json.dumps({"prompt": ids})
        assert await matched_blocks(service, request) == len(ids) // 16
        answer = await tokenize(service, chat_completion=json.dumps(CHAT))
        assert answer.text == RENDERED
        assert list(answer.token_ids) == ids


async def test_a_chat_in_anthropics_form_is_the_same_chat(files: Path) -> None:
    body = {"system": TEXT[1], "messages": [{"role": "user", "content": TEXT[0]}]}
    async with service_with_pod(models=models(files)) as (service, pod):
        answer = await tokenize(service, messages=json.dumps(body))
        assert answer.text == RENDERED
        ids = list(answer.token_ids)
        pod.send(frame(0, block_stored(ids[: len(ids) // 16 * 16])))
        await service.until_applied({("10.0.0.1:8000", 0): 0})
        request = scoring_pb2.ScoreRequest(model=MODEL)
        request.prompt.messages = json.dumps(body)
        assert await matched_blocks(service, request) == len(ids) // 16


async def test_several_prompts_are_scored_in_one_call(files: Path) -> None:
    ids = list(range(32))
    async with service_with_pod(models=models(files)) as (service, pod):
        pod.send(frame(0, block_stored(ids)))
        await service.until_applied({("10.0.0.1:8000", 0): 0})
        stub = scoring_pb2_grpc.ScoringServiceStub(service.channel)
        request = scoring_pb2.ScoreManyRequest()
        for count in (32, 20, 7):
            each = request.requests.add(model=MODEL)
            each.prompt.token_ids.ids.extend(ids[:count])
        answer = await stub.ScoreMany(request)
        assert [each.pods[0].matched_blocks for each in answer.responses] == [2, 1, 0]
        request.requests.insert(1, scoring_pb2.ScoreRequest(model=MODEL))
        answer = await stub.ScoreMany(request)
        assert [len(each.pods) for each in answer.responses] == [1, 0, 1, 1]
        assert list(answer.errors) == [1]
        assert answer.errors[1].code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert answer.errors[1].reason == "REQUEST_INVALID"
        assert "prompt is empty" in answer.errors[1].message


async def test_the_salt_of_a_request_is_part_of_its_first_block(files: Path) -> None:
    ids = list(range(32))
    async with service_with_pod(models=models(files)) as (service, pod):
        pod.send(frame(0, block_stored(ids, extra_keys=[["tenant"], None])))
        await service.until_applied({("10.0.0.1:8000", 0): 0})
        for salt, held in (("tenant", 2), (None, 0), ("other", 0)):
            request = scoring_pb2.ScoreRequest(model=MODEL)
            request.prompt.completion = json.dumps({"prompt": ids, "cache_salt": salt})
            assert await matched_blocks(service, request) == held
        request.cache_salt = "tenant"  # what the call says counts more
        assert await matched_blocks(service, request) == 2


async def test_completions_add_special_tokens_and_chats_do_not_unless_they_are_asked_to(
    files: Path,
) -> None:
    async with service_with_pod(models=models(files)) as (service, _):
        for said, completion, chat in ((None, 0, 1), (True, 0, 0), (False, 1, 1)):
            own = {} if said is None else {"add_special_tokens": said}
            with_start = reference(files).encode(TEXT[0]).ids
            answer = await tokenize(service, completion=json.dumps({"prompt": [TEXT[0]], **own}))
            assert list(answer.token_ids) == with_start[completion:]
            assert not answer.text
            rendered = reference(files).encode(RENDERED).ids
            answer = await tokenize(service, chat_completion=json.dumps({**CHAT, **own}))
            assert list(answer.token_ids) == rendered[chat:]
        cut = json.dumps({"prompt": TEXT[0], "truncate_prompt_tokens": 5})
        answer = await tokenize(service, completion=cut)
        assert list(answer.token_ids) == [0, *with_start[-4:]]
        given = json.dumps({**CHAT, "kv_transfer_params": {"prompt_token_ids": [5, 6]}})
        assert list((await tokenize(service, chat_completion=given)).token_ids) == [5, 6]


async def test_a_model_is_configured_as_its_engine_was_started(files: Path) -> None:
    (files / "mine.jinja").write_text("{{ mood }}{{ messages[0].content[0] }}")
    chat = {"template": str(files / "mine.jinja"), "template_arguments": {"mood": "good"}}
    async with service_with_pod(models=models(files, content_format="openai", **chat)) as (
        service,
        _,
    ):
        body = {"messages": [{"role": "user", "content": "hi"}]}
        answer = await tokenize(service, chat_completion=json.dumps(body))
        assert answer.text == "good{'type': 'text', 'text': 'hi'}"


async def test_the_refusal_of_a_chat_says_what_is_wrong_with_it(files: Path) -> None:
    image = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}
    invalid, precondition = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
    cases: list[tuple[dict[str, Any], grpc.StatusCode, str]] = [
        ({"chat_completion": "{"}, invalid, "not JSON"),
        ({"chat_completion": "[]"}, invalid, "not a JSON object"),
        ({"chat_completion": "{}"}, invalid, "messages"),
        ({"chat_completion": "{}", "text": "x"}, invalid, "only one of text, chat_completion"),
        ({"chat_completion": json.dumps(image)}, grpc.StatusCode.UNIMPLEMENTED, "image_url"),
        ({"completion": json.dumps({"prompt": ["a", "b"]})}, invalid, "several prompts"),
        ({"completion": json.dumps({"prompt": [2**32]})}, invalid, "32 bits"),
        ({"completion": json.dumps({"prompt": [-1]})}, invalid, "negative"),
        ({"completion": json.dumps({"prompt": ""})}, invalid, "empty"),
        ({"completion": json.dumps({"prompt": "a", "suffix": "b"})}, invalid, "suffix"),
        ({"completion": json.dumps({"prompt": "\ud800"})}, invalid, "no Unicode text"),
    ]
    async with service_with_pod(models=models(files)) as (service, _):
        for request, status, words in cases:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await tokenize(service, **request)
            assert raised.value.code() == status, request
            assert words in str(raised.value.details())
    (files / "chat_template.jinja").write_text("{% for %}")
    async with service_with_pod(models=models(files)) as (service, _):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await tokenize(service, chat_completion=json.dumps(CHAT))
        assert raised.value.code() == precondition


async def test_metrics_count_what_the_segment_cache_has_saved(files: Path) -> None:
    async with service_with_pod(models=models(files)) as (service, _):
        for _ in range(2):
            await tokenize(service, chat_completion=json.dumps(CHAT))
        with pytest.raises(grpc.aio.AioRpcError):
            await tokenize(service, chat_completion=json.dumps({"messages": []}))
        url = f"http://127.0.0.1:{service.application.metrics_port}/metrics"
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
    label = f'model="{MODEL}"'
    assert "kvatlas_tokenizations_total 2.0" in text
    assert "kvatlas_tokenizations_failed_total 1.0" in text
    assert "kvatlas_tokenizations_under_way 0.0" in text
    assert f'kvatlas_tokenizer_loaded{{by="fastokens",cached="yes",{label}}} 1.0' in text
    assert f'kvatlas_tokenization_segments_total{{{label},outcome="found"}} 3.0' in text
    assert f'kvatlas_tokenization_segments_total{{{label},outcome="encoded"}} 3.0' in text
    assert "kvatlas_tokenization_seconds_total" in text


@pytest.mark.parametrize(
    ("name", "said", "words"),
    [
        ("config.json", '{"model_type": "gpt_oss"}', "UNIMPLEMENTED.*Harmony"),
        ("config.json", '{"model_type": "deepseek_v32"}', "UNIMPLEMENTED.*engine's code"),
        ("tekken.json", "{}", "FAILED_PRECONDITION.*mistral-common"),
    ],
)
async def test_a_chat_that_no_template_renders_is_refused(
    files: Path, name: str, said: str, words: str
) -> None:
    (files / name).write_text(said)
    settings = {"directories": [str(files.parent)], "aliases": {MODEL: files.name}}
    async with running_service(local_configuration(tokenization=settings)) as service:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await tokenize(service, chat_completion=json.dumps(CHAT))
        found = f"{raised.value.code().name}: {raised.value.details()}"
        assert re.match(words, found), found


async def test_a_prompt_beyond_those_that_may_wait_is_refused_at_once(files: Path) -> None:
    limits = TokenizationLimits(QueueLimits(threads=1, waiting=1))
    async with Tokenizers(ModelFiles({MODEL: files}), limits=limits) as found:
        calls = [found.tokenize(MODEL, Text("a")) for _ in range(3)]
        *served, refused = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(refused, TokenizersBusyError)
        assert not [each for each in served if isinstance(each, BaseException)]
        await found.tokenize(MODEL, Text("a"))  # there is room again
        assert (found.counts.done, found.queue.counts.dropped) == (3, {Drop.QUEUE_FULL: 1})


async def test_chats_go_on_beside_templates_that_never_end(files: Path) -> None:
    """Templates that requests bring, where they are trusted."""

    def chat(template: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": "hi"}], "chat_template": template}

    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    settings = {
        "models": models(files, trust_request_template=True),
        "tokenization": {"template_seconds": 100.0, "threads": 2},
    }
    async with running_service(local_configuration(**settings)) as service:

        async def ask(body: dict[str, Any], form: str = "chat_completion") -> str:
            return str((await tokenize(service, **{form: json.dumps(body)})).text)

        own = {**chat(""), "chat_template_kwargs": {"chat_template": "own: {{ messages[0].role }}"}}
        assert await ask(own) == "own: user"
        assert await ask(own, "messages") == "own: user"
        of_the_model = "user> hi</s>\nassistant> "
        assert await ask(chat("default")) == of_the_model
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ask(chat("{{ 9 ** 9999999 }}"))
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        calls = [asyncio.create_task(ask(chat(endless))) for _ in range(4)]
        answered = 0
        while service.application.tokenizers.processes.waiting < 2 or answered < 50:
            assert await ask(chat("")) == of_the_model
            answered += 1
        assert not any(call.done() for call in calls)
        for call in calls:
            call.cancel()
