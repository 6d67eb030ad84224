"""The tokenization servicer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1 import tokenization_pb2, tokenization_pb2_grpc

from service.rpc.errors import InvalidRequestError

if TYPE_CHECKING:
    import grpc

    from service.rpc.prompts import PromptReader
    from tokenization import Tokenized


_INPUTS = ("text", "chat_completion", "messages", "completion")


class TokenizationServicer(tokenization_pb2_grpc.TokenizationServiceServicer):
    """Answers `Tokenize`."""

    def __init__(self, prompts: PromptReader) -> None:
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
        patience = context.time_remaining()
        ids, text = await self._tokenized(request, given[0] if given else "text", patience)
        rendered = text if request.chat_completion or request.messages else None
        return tokenization_pb2.TokenizeResponse(token_ids=ids, text=rendered or "")

    async def _tokenized(
        self, request: tokenization_pb2.TokenizeRequest, given: str, patience: float | None
    ) -> Tokenized:
        prompts, model = self._prompts, request.model
        if given == "text":
            says = request.HasField("add_special_tokens")
            special = request.add_special_tokens if says else True
            return await prompts.encode(
                model, request.text, add_special_tokens=special, patience=patience
            )
        body = prompts.body(given, getattr(request, given))
        match given:
            case "chat_completion":
                return await prompts.chat(model, body, patience)
            case "messages":
                return await prompts.messages(model, body, patience)
            case _:
                return await prompts.completion(model, body, patience)
