"""The tokenization servicer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1 import tokenization_pb2, tokenization_pb2_grpc

from service.errors import InvalidRequestError

if TYPE_CHECKING:
    import grpc

    from service.prompts import Prompts


class TokenizationServicer(tokenization_pb2_grpc.TokenizationServiceServicer):
    """Answers `Tokenize`."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts

    async def Tokenize(  # noqa: N802
        self,
        request: tokenization_pb2.TokenizeRequest,
        context: grpc.aio.ServicerContext[
            tokenization_pb2.TokenizeRequest, tokenization_pb2.TokenizeResponse
        ],
    ) -> tokenization_pb2.TokenizeResponse:
        """See tokenization.proto."""
        if not request.model:
            raise InvalidRequestError("model is not set")
        special = request.add_special_tokens if request.HasField("add_special_tokens") else True
        ids = await self._prompts.encode(request.model, request.text, special)
        return tokenization_pb2.TokenizeResponse(token_ids=ids)
