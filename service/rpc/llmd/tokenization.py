"""The tokenization service of llm-d-kv-cache, under its own name: its clients find it here.

As in the original, a call that fails is answered with `success` false and an error message.
"""

from __future__ import annotations

import uuid
from collections import Counter
from functools import wraps
from typing import TYPE_CHECKING, TypeVar

from kvatlas.compat import tokenization_pb2 as compat
from kvatlas.compat import tokenization_pb2_grpc
from typing_extensions import override

from service.rpc.bounds.refusal import plain
from service.rpc.errors import KNOWN_ERRORS, InvalidRequestError, kind_of
from service.rpc.llmd.prompts import (
    chat_prompt,
    completion_prompt,
    older_chat_prompt,
    text_prompt,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from grpc.aio import ServicerContext

    from service.rpc.prompts import PromptReader

    Method = Callable[
        ["LlmdTokenizationServicer", "_Request", ServicerContext["_Request", "_Response"]],
        Awaitable["_Response"],
    ]

_Request = TypeVar(
    "_Request",
    compat.TokenizeRequest,
    compat.ChatTemplateRequest,
    compat.InitializeTokenizerRequest,
    compat.RenderChatCompletionRequest,
    compat.RenderCompletionRequest,
)
_Response = TypeVar(
    "_Response",
    compat.TokenizeResponse,
    compat.ChatTemplateResponse,
    compat.InitializeTokenizerResponse,
    compat.RenderChatCompletionResponse,
    compat.RenderCompletionResponse,
)


def _errors_as(
    response: type[_Response],
) -> Callable[[Method[_Request, _Response]], Method[_Request, _Response]]:
    """Make a method answer an error with a response that has not succeeded."""

    def decorate(method: Method[_Request, _Response]) -> Method[_Request, _Response]:
        @wraps(method)
        async def call(
            servicer: LlmdTokenizationServicer,
            request: _Request,
            context: ServicerContext[_Request, _Response],
        ) -> _Response:
            try:
                if not request.model_name:
                    raise InvalidRequestError("model_name is not set")
                return await method(servicer, request, context)
            except KNOWN_ERRORS as error:
                servicer.failures[method.__name__, kind_of(error).status.name] += 1
                return response(success=False, error_message=plain(str(error)))

        return call

    return decorate


class LlmdTokenizationServicer(tokenization_pb2_grpc.TokenizationServiceServicer):
    """Answers `tokenization.TokenizationService`.

    Attributes:
        failures: calls whose answer has not succeeded, by the names of the method and of the
            status that they would have in kvatlas' own services. To gRPC these calls are OK.
    """

    def __init__(self, prompts: PromptReader) -> None:
        self.failures: Counter[tuple[str, str]] = Counter()
        self._prompts = prompts

    @override
    @_errors_as(compat.TokenizeResponse)
    async def Tokenize(
        self,
        request: compat.TokenizeRequest,
        context: ServicerContext[compat.TokenizeRequest, compat.TokenizeResponse],
    ) -> compat.TokenizeResponse:
        text = text_prompt(request, self._prompts)
        timeout = context.time_remaining()
        ids, offsets = await self._prompts.offsets(request.model_name, text, timeout)
        return compat.TokenizeResponse(input_ids=ids, offset_pairs=offsets, success=True)

    @override
    @_errors_as(compat.ChatTemplateResponse)
    async def RenderChatTemplate(
        self,
        request: compat.ChatTemplateRequest,
        context: ServicerContext[compat.ChatTemplateRequest, compat.ChatTemplateResponse],
    ) -> compat.ChatTemplateResponse:
        prompt, timeout = older_chat_prompt(request, self._prompts), context.time_remaining()
        tokenized = await self._prompts.tokenize(request.model_name, prompt, timeout)
        return compat.ChatTemplateResponse(rendered_prompt=tokenized.rendered, success=True)

    @override
    @_errors_as(compat.InitializeTokenizerResponse)
    async def InitializeTokenizer(
        self,
        request: compat.InitializeTokenizerRequest,
        context: ServicerContext[
            compat.InitializeTokenizerRequest, compat.InitializeTokenizerResponse
        ],
    ) -> compat.InitializeTokenizerResponse:
        await self._prompts.load(request.model_name)
        return compat.InitializeTokenizerResponse(success=True)

    @override
    @_errors_as(compat.RenderChatCompletionResponse)
    async def RenderChatCompletion(
        self,
        request: compat.RenderChatCompletionRequest,
        context: ServicerContext[
            compat.RenderChatCompletionRequest, compat.RenderChatCompletionResponse
        ],
    ) -> compat.RenderChatCompletionResponse:
        prompt, timeout = chat_prompt(request, self._prompts), context.time_remaining()
        tokenized = await self._prompts.tokenize(request.model_name, prompt, timeout)
        return compat.RenderChatCompletionResponse(
            request_id=uuid.uuid4().hex, token_ids=tokenized.ids.tolist(), success=True
        )

    @override
    @_errors_as(compat.RenderCompletionResponse)
    async def RenderCompletion(
        self,
        request: compat.RenderCompletionRequest,
        context: ServicerContext[compat.RenderCompletionRequest, compat.RenderCompletionResponse],
    ) -> compat.RenderCompletionResponse:
        prompt, timeout = completion_prompt(request, self._prompts), context.time_remaining()
        tokenized = await self._prompts.tokenize(request.model_name, prompt, timeout)
        return compat.RenderCompletionResponse(
            request_id=uuid.uuid4().hex, token_ids=tokenized.ids.tolist(), success=True
        )
