"""TokenizationService: prompts -> token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1 import tokenization_pb2, tokenization_pb2_grpc
from typing_extensions import override

from service.rpc.errors import InvalidRequestError

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
        ids, rendered, *_ = await self._prompts.tokenize(request.model, prompt, timeout)
        return tokenization_pb2.TokenizeResponse(token_ids=ids.tolist(), text=rendered)
