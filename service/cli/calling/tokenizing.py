"""`kvatlas tokenize`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvatlas.v1 import tokenization_pb2, tokenization_pb2_grpc

from service.cli.calling.calls import ask
from service.cli.calling.prompts import read, text_or_stdin

if TYPE_CHECKING:
    import grpc

    from service.cli.flags.command import Options
    from service.cli.screen.tables import Part


def tokenize(options: Options) -> int:
    """Show the token ids of a text or a chat. Returns the exit status."""

    def call(channel: grpc.Channel, **how: Any) -> Any:
        request = tokenization_pb2.TokenizeRequest(
            model=options.model,
            add_special_tokens=not options.no_special_tokens,
        )
        if options.chat is not None:
            request.chat_completion = read(options.chat)
        else:
            request.text = text_or_stdin(options.text)
        stub = tokenization_pb2_grpc.TokenizationServiceStub(channel)
        return stub.Tokenize(request, **how)

    return ask(options, call, _shown)


def _shown(answer: Any) -> list[Part]:
    from service.cli.screen.answers import token_ids  # rich is not needed for JSON

    return token_ids(answer)
