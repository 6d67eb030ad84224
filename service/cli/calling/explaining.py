"""`kvatlas explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvatlas.v1 import explain_pb2, explain_pb2_grpc

from service.cli.calling.calls import ask
from service.cli.calling.prompts import score_request

if TYPE_CHECKING:
    import grpc

    from service.cli.flags.command import Options
    from service.cli.screen.tables import Part


def explain(options: Options) -> int:
    """Say why a prompt has the scores that it has. Returns the exit status."""

    def call(channel: grpc.Channel, **how: Any) -> Any:
        request = explain_pb2.ExplainRequest(score=score_request(options))
        return explain_pb2_grpc.ExplainServiceStub(channel).Explain(request, **how)

    return ask(options, call, _shown)


def _shown(answer: Any) -> list[Part]:
    from service.cli.screen.explanations import explanation  # rich is not needed for JSON

    return explanation(answer)
