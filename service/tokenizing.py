"""The tokenization servicer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1 import tokenization_pb2, tokenization_pb2_grpc

from service.errors import InvalidRequestError

if TYPE_CHECKING:
    import grpc

    from service.prompts import Prompts
    from tokenization import Tokenized


_INPUTS = ("text", "chat_completion", "messages", "completion")


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
        given = [name for name in _INPUTS if getattr(request, name)]
        if len(given) > 1:
            raise InvalidRequestError(f"set only one of {', '.join(given)}")
        ids, text = await self._tokenized(request, given[0] if given else "text")
        rendered = text if request.chat_completion or request.messages else None
        return tokenization_pb2.TokenizeResponse(token_ids=ids, text=rendered or "")

    async def _tokenized(self, request: tokenization_pb2.TokenizeRequest, given: str) -> Tokenized:
        prompts, model = self._prompts, request.model
        match given:
            case "chat_completion":
                return await prompts.chat(model, prompts.body(given, request.chat_completion))
            case "messages":
                return await prompts.messages(model, prompts.body(given, request.messages))
            case "completion":
                return await prompts.completion(model, prompts.body(given, request.completion))
            case _:
                says = request.HasField("add_special_tokens")
                special = request.add_special_tokens if says else True
                return await prompts.encode(model, request.text, add_special_tokens=special)
