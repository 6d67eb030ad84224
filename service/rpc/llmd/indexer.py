"""The scoring service of llm-d-kv-cache: `Score` with fewer words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.compat import indexer_pb2 as compat
from kvatlas.compat import indexer_pb2_grpc
from kvatlas.v1 import scoring_pb2
from typing_extensions import override

from service.rpc.bounds import LongWork

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    from service.rpc.bounds import CallBounds
    from service.rpc.scoring import Scorer


class LlmdIndexerServicer(indexer_pb2_grpc.IndexerServiceServicer):
    """Answers `indexer.v1.IndexerService`."""

    def __init__(self, scorer: Scorer, bounds: CallBounds) -> None:
        self._scorer = scorer
        self._bounds = bounds

    @override
    async def GetPodScores(
        self,
        request: compat.GetPodScoresRequest,
        context: ServicerContext[compat.GetPodScoresRequest, compat.GetPodScoresResponse],
    ) -> compat.GetPodScoresResponse:
        asked = scoring_pb2.ScoreRequest(
            model=request.model_name,
            prompt=scoring_pb2.Prompt(text=request.prompt),
            pods=request.pod_identifiers,
            only_holders=True,  # as in the original
        )
        work = LongWork(self._bounds.turns, context)
        scored = await self._scorer.score(asked, work, self._scorer.limits.call_tokens)
        pods = scoring_pb2.ScoreResponse.FromString(scored.encoded).pods
        return compat.GetPodScoresResponse(
            scores=[compat.PodScore(pod=each.pod, score=each.score) for each in pods]
        )
