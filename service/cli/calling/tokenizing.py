"""`kvatlas tokenize`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvatlas.v1 import tokenization_pb2

from service.cli.calling.calls import ask
from service.cli.calling.prompts import read, text_or_stdin

if TYPE_CHECKING:
    from kvatlas_client import Client

    from service.cli.flags.command import Options
    from service.cli.screen.tables import Part


def tokenize(options: Options) -> int:
    """Show the token ids of a text or a chat. Returns the exit status."""

    def call(client: Client) -> Any:
        request = tokenization_pb2.TokenizeRequest(
            model=options.model,
            add_special_tokens=not options.no_special_tokens,
        )
        if options.chat is not None:
            request.chat_completion = read(options.chat)
        else:
            request.text = text_or_stdin(options.text)
        return client.tokenize(request)

    return ask(options, call, _shown)


def _shown(answer: Any) -> list[Part]:
    from service.cli.screen.answers import token_ids  # rich is not needed for JSON

    return token_ids(answer)
