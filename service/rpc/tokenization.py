"""TokenizationService: prompts -> token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1 import tokenization_pb2, tokenization_pb2_grpc
from typing_extensions import override

from service.rpc.errors import InvalidRequestError
from tokenization import AnthropicMessages, ChatCompletion

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    from service.rpc.prompts import PromptReader


class TokenizationServicer(tokenization_pb2_grpc.TokenizationServiceServicer):
    """Answers `Tokenize`."""

    def __init__(self, prompts: PromptReader) -> None:
        self._prompts = prompts

    @override
    async def Tokenize(
        self,
        request: tokenization_pb2.TokenizeRequest,
        context: ServicerContext[
            tokenization_pb2.TokenizeRequest, tokenization_pb2.TokenizeResponse
        ],
    ) -> tokenization_pb2.TokenizeResponse:
        if not request.model:
            raise InvalidRequestError("model is not set")
        prompt = self._prompts.tokenize_prompt(request)
        timeout = context.time_remaining()
        tokenized = await self._prompts.tokenize(request.model, prompt, timeout)
        is_chat = isinstance(prompt, ChatCompletion | AnthropicMessages)
        return tokenization_pb2.TokenizeResponse(
            token_ids=tokenized.ids.tolist(),
            # A caller has the text of anything but a chat.
            text=tokenized.text if is_chat else None,
        )
