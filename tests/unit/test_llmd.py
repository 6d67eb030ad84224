"""Failures inside of answers that have succeeded for gRPC."""

from __future__ import annotations

from typing import Any, cast

from kvatlas.compat import tokenization_pb2 as compat

from service.config import LimitsSection
from service.rpc.llmd import LlmdTokenizationServicer
from service.rpc.model_names import ModelNames
from service.rpc.prompts import PromptReader
from tokenization import ModelFiles, Tokenizers


class Context:
    def time_remaining(self) -> None:
        return None


async def test_failures_are_counted_by_method_and_by_what_they_are() -> None:
    servicer = LlmdTokenizationServicer(
        PromptReader(Tokenizers(ModelFiles()), LimitsSection(), ModelNames({}, bool))
    )
    context = cast("Any", Context())
    await servicer.Tokenize(compat.TokenizeRequest(input="a"), context)
    for _ in range(2):
        await servicer.Tokenize(compat.TokenizeRequest(model_name="m", input="a"), context)
    chat = compat.RenderChatCompletionRequest(model_name="m", tools_json="{")
    await servicer.RenderChatCompletion(chat, context)
    assert servicer.failures == {
        ("Tokenize", "INVALID_ARGUMENT"): 1,
        ("Tokenize", "FAILED_PRECONDITION"): 2,
        ("RenderChatCompletion", "INVALID_ARGUMENT"): 1,
    }
