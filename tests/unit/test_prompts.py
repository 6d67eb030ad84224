"""Requests become prompts, within the limits."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from kvatlas.v1 import scoring_pb2, tokenization_pb2
from pydantic import ByteSize

from service.config import LimitsSection
from service.rpc.bounds import LongWork
from service.rpc.bounds.turns import Turns
from service.rpc.errors import InvalidRequestError, TooLargeError
from service.rpc.model_names import ModelNames
from service.rpc.prompts import PromptReader, TokenizedPrompt
from tokenization import (
    AnthropicMessages,
    ChatCompletion,
    Completion,
    ModelFiles,
    Prompt,
    RequestBody,
    Text,
    TokenIds,
    Tokenized,
    Tokenizers,
)

BODY = {"a": [1], "cache_salt": "s"}
FORMS = [
    ("chat_completion", ChatCompletion),
    ("messages", AnthropicMessages),
    ("completion", Completion),
]
TOKENIZERS = Tokenizers(ModelFiles())  # with no model at all


class ThreeTokens(Tokenizers):
    """Tokenizes every prompt to the same tokens."""

    async def tokenize(self, model: str, prompt: Prompt, timeout: float | None = None) -> Tokenized:
        return Tokenized(np.zeros(3, dtype=np.uint32))


def reader(text_bytes: int = 100, tokenizers: Tokenizers = TOKENIZERS) -> PromptReader:
    limits = LimitsSection(prompt_tokens=100, text_bytes=ByteSize(text_bytes))
    return PromptReader(tokenizers, limits, ModelNames({}, bool))


class Patience:
    """A caller that never gives up."""

    def time_remaining(self) -> None:
        return None


def patient() -> LongWork:
    """The work of a call without a deadline."""
    return LongWork(Turns(), Patience())


def packed(*ids: int) -> scoring_pb2.Prompt:
    return scoring_pb2.Prompt(packed_token_ids=struct.pack(f"<{len(ids)}I", *ids))


async def read(
    prompt: scoring_pb2.Prompt, tokenizers: Tokenizers = TOKENIZERS, **fields: Any
) -> TokenizedPrompt:
    request = scoring_pb2.ScoreRequest(model="m", prompt=prompt, **fields)
    return await reader(tokenizers=tokenizers).read_score(request, patient())


# ScoreRequest


@pytest.mark.parametrize(
    "message",
    [
        packed(1, 2, 2**32 - 1),
        scoring_pb2.Prompt(token_ids=scoring_pb2.TokenIds(ids=[1, 2, 2**32 - 1])),
    ],
)
def test_token_ids_in_either_form_become_one_array(message: scoring_pb2.Prompt) -> None:
    prompt = reader().score_prompt(message)
    assert isinstance(prompt, TokenIds)
    assert prompt.ids.dtype == np.uint32
    assert prompt.ids.tolist() == [1, 2, 2**32 - 1]


def test_packed_token_ids_are_not_copied() -> None:
    message = packed(1, 2)
    prompt = reader().score_prompt(message)
    assert isinstance(prompt, TokenIds)
    assert not prompt.ids.flags.owndata


def test_packed_token_ids_of_a_broken_length_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="5 bytes"):
        reader().score_prompt(scoring_pb2.Prompt(packed_token_ids=b"12345"))


@pytest.mark.parametrize(
    "message", [packed(), scoring_pb2.Prompt(token_ids=scoring_pb2.TokenIds())]
)
def test_token_ids_without_a_token_are_refused(message: scoring_pb2.Prompt) -> None:
    with pytest.raises(InvalidRequestError, match="no tokens"):
        reader().score_prompt(message)


def test_a_prompt_with_no_input_is_refused_with_the_names_of_all_inputs() -> None:
    with pytest.raises(InvalidRequestError, match="prompt is empty") as raised:
        reader().score_prompt(scoring_pb2.Prompt())
    for name in ("text", "token_ids", "packed_token_ids", *(name for name, _ in FORMS)):
        assert f"prompt.{name}" in str(raised.value)


def test_a_text_to_score_gets_special_tokens() -> None:
    assert reader().score_prompt(scoring_pb2.Prompt(text="a")) == Text("a", add_special_tokens=True)


@pytest.mark.parametrize(("field", "form"), FORMS)
def test_a_body_becomes_the_form_of_its_field(field: str, form: type[Prompt]) -> None:
    text: Any = {field: json.dumps(BODY)}
    for prompt in (
        reader().score_prompt(scoring_pb2.Prompt(**text)),
        reader().tokenize_prompt(tokenization_pb2.TokenizeRequest(**text)),
    ):
        assert type(prompt) is form
        assert isinstance(prompt, RequestBody)
        assert prompt.body == BODY


@pytest.mark.parametrize(("field", "_form"), FORMS)
@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("{", InvalidRequestError, "is not JSON"),
        ("[" * 90, InvalidRequestError, "is not JSON"),
        ("[]", InvalidRequestError, "is not a JSON object"),
        ("", InvalidRequestError, "is empty"),
        ('"' + "x" * 100, TooLargeError, "limit of 100 bytes"),
    ],
)
def test_a_malformed_body_is_refused_by_the_name_of_its_field(
    field: str, _form: object, text: str, error: type[Exception], words: str
) -> None:
    message: Any = {field: text}
    with pytest.raises(error, match=rf"^prompt\.{field} .*{words}"):
        reader().score_prompt(scoring_pb2.Prompt(**message))


def test_a_text_is_measured_in_bytes_not_characters() -> None:
    assert reader(text_bytes=6).score_prompt(scoring_pb2.Prompt(text="äöü")) == Text("äöü")
    with pytest.raises(TooLargeError, match=r"prompt\.text .*5 bytes"):
        reader(text_bytes=5).score_prompt(scoring_pb2.Prompt(text="äöü"))


# ScoreRequest, tokenized


async def test_token_ids_are_widened_without_a_tokenizer() -> None:
    before = TOKENIZERS.counts.done
    read_tokens, items, salt, _ = await read(packed(1, 2**32 - 1))
    tokens = memoryview(read_tokens)
    assert (tokens.itemsize, tokens.tolist(), tokens.readonly) == (8, [1, 2**32 - 1], False)
    assert (list(items), salt) == ([], "")
    assert TOKENIZERS.counts.done == before


async def test_a_prompt_beyond_the_token_limit_is_refused() -> None:
    assert len((await read(packed(*range(100)))).tokens) == 100
    with pytest.raises(TooLargeError, match="101 tokens"):
        await read(packed(*range(101)))


async def test_a_body_s_salt_is_used_unless_the_call_has_one() -> None:
    tokenizers = ThreeTokens(ModelFiles())
    for field, _ in FORMS:
        message: Any = {field: json.dumps(BODY)}
        prompt = scoring_pb2.Prompt(**message)
        assert (await read(prompt, tokenizers)).cache_salt == "s"
        assert (await read(prompt, tokenizers, cache_salt="call")).cache_salt == "call"
        long: Any = {field: json.dumps({**BODY, "b": "x" * 100_000})}
        found = await reader(2**20, tokenizers).read_score(
            scoring_pb2.ScoreRequest(model="m", prompt=scoring_pb2.Prompt(**long)), patient()
        )
        assert found.cache_salt == "s"
        none: Any = {field: json.dumps({"cache_salt": None})}
        assert (await read(scoring_pb2.Prompt(**none), tokenizers)).cache_salt == ""


async def test_a_salt_that_is_no_string_is_refused_even_if_the_call_has_one() -> None:
    prompt = scoring_pb2.Prompt(completion='{"prompt": "a", "cache_salt": 1}')
    with pytest.raises(InvalidRequestError, match="cache_salt is not a string"):
        await read(prompt, ThreeTokens(ModelFiles()), cache_salt="call")


async def test_multimodal_items_are_read() -> None:
    prompt = packed(*range(8))
    prompt.multimodal_items.add(hash="b", offset=4, length=3)
    prompt.multimodal_items.add(hash="a", offset=0, length=4)
    items = (await read(prompt)).items
    assert [(item.offset, item.length) for item in items] == [(0, 4), (4, 3)]


async def test_a_multimodal_item_without_a_hash_is_refused() -> None:
    prompt = packed(1)
    prompt.multimodal_items.add(offset=0, length=1)
    with pytest.raises(InvalidRequestError, match=r"multimodal_items\[0\] has no hash"):
        await read(prompt)


@pytest.mark.parametrize(
    ("offset", "length", "words"),
    [
        (0, 0, "has length 0"),
        (2**32 - 1, 0, "has length 0"),
        (4, 5, "ends at token 9, after the prompt, which has 8 tokens"),
        (8, 1, "ends at token 9"),
        (2**32 - 1, 2**32 - 1, "after the prompt"),
    ],
)
async def test_a_multimodal_item_that_is_not_in_the_prompt_is_refused(
    offset: int, length: int, words: str
) -> None:
    prompt = packed(*range(8))
    prompt.multimodal_items.add(hash="b", offset=0, length=1)
    prompt.multimodal_items.add(hash="a", offset=offset, length=length)
    with pytest.raises(InvalidRequestError, match=rf"multimodal_items\[1\] .*{words}"):
        await read(prompt)


async def test_multimodal_items_beyond_the_limits_are_refused() -> None:
    prompt = packed(*range(8))
    prompt.multimodal_items.add(hash="h" * 513, offset=0, length=1)
    with pytest.raises(TooLargeError, match=r"hash .*512 bytes \(limits\.name_bytes\)"):
        await read(prompt)
    prompt.multimodal_items.extend([scoring_pb2.MultimodalItem()] * 4096)
    with pytest.raises(TooLargeError, match="has 4097 items, the limit is 4096"):
        await read(prompt)


async def test_a_long_salt_is_refused_wherever_it_stands() -> None:
    with pytest.raises(TooLargeError, match=r"cache_salt .*512 bytes"):
        await read(packed(1), cache_salt="s" * 513)
    with pytest.raises(TooLargeError, match=r"cache_salt .*512 bytes"):
        await read(packed(1), cache_salt="é" * 257)
    await read(packed(1), cache_salt="é" * 256)


async def test_items_of_which_few_tokens_overlap_are_refused() -> None:
    prompt = packed(*range(8))
    prompt.multimodal_items.add(hash="a", offset=5, length=1)
    prompt.multimodal_items.add(hash="b", offset=0, length=2)
    prompt.multimodal_items.add(hash="c", offset=1, length=2)
    with pytest.raises(InvalidRequestError, match="5 of 8 tokens: they overlap"):
        await read(prompt)


async def test_multimodal_items_that_must_overlap_are_refused() -> None:
    prompt = packed(*range(8))
    prompt.multimodal_items.add(hash="a", offset=0, length=5)
    prompt.multimodal_items.add(hash="b", offset=4, length=4)
    with pytest.raises(InvalidRequestError, match="9 of 8 tokens"):
        await read(prompt)


# TokenizeRequest


@pytest.mark.parametrize(
    ("given", "special"), [({}, True), ({"a": True}, True), ({"a": False}, False)]
)
def test_a_text_to_tokenize_gets_special_tokens_unless_it_declines_them(
    given: dict[str, bool], special: bool
) -> None:
    request = tokenization_pb2.TokenizeRequest(text="x")
    if given:
        request.add_special_tokens = given["a"]
    assert reader().tokenize_prompt(request) == Text("x", special)


def test_a_tokenize_request_with_several_inputs_is_refused_with_their_names() -> None:
    request = tokenization_pb2.TokenizeRequest(text="x", completion="{}")
    with pytest.raises(InvalidRequestError, match="set only one of text, completion"):
        reader().tokenize_prompt(request)


def test_a_tokenize_request_with_no_input_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="text is empty"):
        reader().tokenize_prompt(tokenization_pb2.TokenizeRequest())
