"""What ExplainService says, over a real channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvatlas.v1 import explain_pb2, explain_pb2_grpc

if TYPE_CHECKING:
    import grpc
    from kvatlas.v1 import scoring_pb2


async def explain(
    channel: grpc.aio.Channel, request: scoring_pb2.ScoreRequest
) -> explain_pb2.ExplainResponse:
    """The explanation of a request's scores."""
    stub = explain_pb2_grpc.ExplainServiceStub(channel)
    answer = await stub.Explain(explain_pb2.ExplainRequest(score=request))
    assert isinstance(answer, explain_pb2.ExplainResponse)
    return answer


async def look_up(channel: grpc.aio.Channel, **request: Any) -> explain_pb2.LookupBlocksResponse:
    """What is known of some blocks."""
    stub = explain_pb2_grpc.ExplainServiceStub(channel)
    answer = await stub.LookupBlocks(explain_pb2.LookupBlocksRequest(**request))
    assert isinstance(answer, explain_pb2.LookupBlocksResponse)
    return answer


def rank_of(
    answer: explain_pb2.ExplainResponse, pod: str, rank: int = 0
) -> explain_pb2.ExplainedRank:
    """What an explanation says of one rank."""
    (found,) = [each for each in answer.pods if each.pod == pod]
    (explained,) = [each for each in found.ranks if each.rank == rank]
    return explained


def suspects_of(answer: explain_pb2.ExplainResponse) -> dict[str, explain_pb2.Suspect]:
    """The suspects of an explanation by kind; the first of each."""
    return {suspect.kind: suspect for suspect in reversed(answer.suspects)}
