"""Where models are found, and what becomes of them as files change and memory runs out."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from kvatlas.v1 import tokenization_pb2, tokenization_pb2_grpc
from support.models.trained import TEXT, write_tokenizer
from support.services.one_pod import (
    MODEL,
    TOKENS,
    block_stored,
    frame,
    score,
    score_request,
    service_with_pod,
)
from support.services.running import local_configuration, running_service

from tokenization import (
    ChatCompletion,
    Drop,
    ModelFiles,
    QueueLimits,
    Text,
    TokenizationLimits,
    TokenizerMissingError,
    Tokenizers,
    TokenizersBusyError,
)
from tokenization.chat import Caller
from tokenization.queue import TextQueue


def model_at(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return write_tokenizer(directory)


def test_models_are_found_in_every_directory_layout(tmp_path: Path) -> None:
    nested = model_at(tmp_path / "org" / "nested")
    cached = model_at(tmp_path / "models--org--cached" / "snapshots" / "abc")
    (tmp_path / "models--org--cached" / "refs").mkdir()
    (tmp_path / "models--org--cached" / "refs" / "main").write_text("abc")
    explicit = model_at(tmp_path / "elsewhere")
    files = ModelFiles(
        configured={"m": explicit.parent, "n": explicit, "broken": tmp_path / "nothing"},
        aliases={"served": "org/nested", "other": "m"},
        directories=[tmp_path],
        hub_cache=tmp_path / "empty",
    )
    assert files.find("org/nested") == files.find("served") == nested
    assert files.find("org/cached") == cached
    assert files.find("m") == files.find("n") == files.find("other") == explicit
    for name in ("org/unknown", "broken", "../elsewhere", "/etc", "", "org//nested", "."):
        with pytest.raises(TokenizerMissingError, match="no tokenizer"):
            files.find(name)
    assert ModelFiles(hub_cache=tmp_path).find("org/cached") == cached


async def test_a_model_s_tokenizer_is_never_used_for_another_model(tmp_path: Path) -> None:
    model_at(tmp_path / "a")
    async with Tokenizers(ModelFiles(directories=[tmp_path])) as found:
        await found.tokenize("a", Text("x"))
        with pytest.raises(TokenizerMissingError):
            await found.tokenize("b", Text("x"))
        assert [model.name for model in found.models()] == ["a"]


async def test_a_template_that_is_the_processor_s_alone_is_used(tmp_path: Path) -> None:
    model_at(tmp_path / "a")
    (tmp_path / "a" / "chat_template.json").write_text('{"chat_template": "the processor\'s"}')
    request = {"messages": [{"role": "user", "content": "x"}]}
    async with Tokenizers(ModelFiles(directories=[tmp_path])) as found:
        assert (await found.tokenize("a", ChatCompletion(request))).rendered == "the processor's"


async def test_tokenizer_files_that_change_are_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenization.tokenizers._CHECK_SECONDS", 0.0)
    model_at(tmp_path / "a")
    template = tmp_path / "a" / "chat_template.jinja"
    template.write_text("one")
    request = {"messages": [{"role": "user", "content": "x"}]}
    async with Tokenizers(ModelFiles(directories=[tmp_path])) as found:
        assert (await found.tokenize("a", ChatCompletion(request))).rendered == "one"
        (first,) = found.models()
        assert (await found.tokenize("a", ChatCompletion(request))).rendered == "one"
        assert found.models() == [first]
        template.write_text("two")
        os.utime(template, ns=(1, 1))
        assert (await found.tokenize("a", ChatCompletion(request))).rendered == "two"


async def test_the_longest_unused_models_are_unloaded_for_others(tmp_path: Path) -> None:
    for name in "abc":
        model_at(tmp_path / name)
    size = (tmp_path / "a" / "tokenizer.json").stat().st_size
    limits = TokenizationLimits(models_bytes=60 * size, cache_bytes=0)
    async with Tokenizers(ModelFiles(directories=[tmp_path]), limits=limits) as found:
        for name in "abac":
            await found.tokenize(name, Text("x"))
        assert [model.name for model in found.models()] == ["a", "c"]
        assert found.counts.evicted == 1
        await found.tokenize("b", Text("x"))
        assert [model.name for model in found.models()] == ["c", "b"]


async def test_a_prompt_that_cannot_wait_for_its_turn_is_refused_at_once(tmp_path: Path) -> None:
    model_at(tmp_path / "a")
    limits = TokenizationLimits(QueueLimits(threads=1), cache_bytes=0)
    async with Tokenizers(ModelFiles(directories=[tmp_path]), limits=limits) as found:
        text = " ".join(TEXT) * 200
        await found.tokenize("a", Text(text))
        longer = [asyncio.create_task(found.tokenize("a", Text(text))) for _ in range(5)]
        await asyncio.sleep(0)  # they have begun
        with pytest.raises(TokenizersBusyError, match="5 prompts"):
            await found.tokenize("a", Text("x"), timeout=1e-6)
        patient = found.tokenize("a", Text("x"), timeout=1000.0)
        await asyncio.gather(patient, *longer)
        assert (found.counts.done, found.queue.counts.dropped) == (7, {Drop.TOO_LATE: 1})


async def occupy(queue: TextQueue, until: threading.Event) -> None:
    """Keep a thread busy."""
    with queue.place(1, Caller()) as place:
        await queue.run(place, until.wait)


async def test_a_prompt_of_token_ids_does_not_wait_behind_texts(tmp_path: Path) -> None:
    """While every thread is busy with texts, prompts of ids are answered."""
    model_at(tmp_path / "a")
    settings = {
        "models": [{"name": MODEL, "tokenizer": str(tmp_path / "a")}],
        "tokenization": {"threads": 1, "queue": 4},
    }
    async with service_with_pod(**settings) as (service, pod):
        pod.send(frame(0, block_stored(TOKENS)))
        await service.until_applied({("10.0.0.1:8000", 0): 0})
        done, queue = threading.Event(), service.application.tokenizers.queue
        occupied = asyncio.create_task(occupy(queue, done))
        stub = tokenization_pb2_grpc.TokenizationServiceStub(service.channel)
        request = tokenization_pb2.TokenizeRequest(model=MODEL, text="x")
        calls = [asyncio.ensure_future(stub.Tokenize(request)) for _ in range(5)]
        (refused,), waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert "5 prompts" in str(refused.exception())
        for _ in range(10):
            answer = await score(service, score_request(TOKENS))
            assert answer.pods[0].matched_blocks == 4
        assert not any(call.done() for call in waiting)
        done.set()
        await asyncio.gather(occupied, *waiting)


async def test_the_models_of_a_configured_directory_are_served(tmp_path: Path) -> None:
    model_at(tmp_path / "org" / "a")
    settings = {"directories": [str(tmp_path)], "aliases": {"served": "org/a"}}
    async with running_service(local_configuration(tokenization=settings)) as service:
        stub = tokenization_pb2_grpc.TokenizationServiceStub(service.channel)
        for name in ("org/a", "served"):
            request = tokenization_pb2.TokenizeRequest(model=name, text="x")
            assert (await stub.Tokenize(request)).token_ids[0] == 0


def test_a_model_is_found_where_its_engine_has_it_from(tmp_path: Path) -> None:
    stored = tmp_path / "org" / "Big-8B"
    stored.mkdir(parents=True)
    (stored / "tokenizer.json").write_text("{}")
    outside = tmp_path.parent / "outside"
    outside.mkdir()
    (outside / "tokenizer.json").write_text("{}")

    def found(origin: str, **where: Any) -> Path | None:
        files = ModelFiles(**{"directories": [tmp_path], "origins": {"served": origin}, **where})
        try:
            return files.find("served")
        except TokenizerMissingError:
            return None

    assert found("org/Big-8B") == stored / "tokenizer.json"
    assert found(str(stored)) == stored / "tokenizer.json"
    for foreign in (str(outside), f"{tmp_path}/../outside", "../outside", "./plain", "\0", ""):
        assert found(foreign) is None
    # What is configured, or found under the model's own name, counts more.
    assert found("org/Big-8B", aliases={"served": "other"}) is None
    own = tmp_path / "served"
    own.mkdir()
    (own / "tokenizer.json").write_text("{}")
    assert found("org/Big-8B") == own / "tokenizer.json"
