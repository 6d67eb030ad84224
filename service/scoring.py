"""The scoring servicer: a ScoreRequest goes in, a ScoreResponse comes out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc

from indexer import block_extras
from service.errors import InvalidRequestError, UnknownModelError
from service.prompts import multimodal_items
from service.trust import TRUST_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import grpc

    from indexer import Index, KeyScheme, PrefixMatch, Worker
    from kvevents import WorkerStream
    from service.misconfiguration import UnmatchedPrompts
    from service.prompts import Prompts


class ScoringServicer(scoring_pb2_grpc.ScoringServiceServicer):
    """Answers `Score`. Between its tokens and its answer a request never waits."""

    def __init__(
        self,
        index: Index,
        streams: Mapping[Worker, WorkerStream],
        prompts: Prompts,
        scheme_of: Callable[[str], KeyScheme],
        configured_models: Collection[str],
        unmatched: UnmatchedPrompts,
    ) -> None:
        self._index = index
        self._streams = streams
        self._prompts = prompts
        self._scheme_of = scheme_of
        self._configured_models = configured_models
        self._unmatched = unmatched

    async def Score(  # noqa: N802
        self,
        request: scoring_pb2.ScoreRequest,
        context: grpc.aio.ServicerContext[scoring_pb2.ScoreRequest, scoring_pb2.ScoreResponse],
    ) -> scoring_pb2.ScoreResponse:
        """See scoring.proto."""
        model = request.model
        self._check_model(model)
        tokens = await self._prompts.tokens(model, request.prompt)
        scheme = self._scheme_of(model)
        extras = None
        if request.prompt.multimodal_items or request.cache_salt:
            extras = block_extras(
                multimodal_items(request.prompt, len(tokens)),
                request.cache_salt,
                len(tokens),
                scheme.block_size,
            )
        keys = scheme.keys(scheme.root(request.lora_name), tokens, extras)
        response = scoring_pb2.ScoreResponse(
            total_blocks=len(keys), total_tokens=len(tokens), block_size=scheme.block_size
        )
        pods = request.pods or self._index.pods_of(model)
        matched = self._answer(response, self._index.match(model, keys), pods)
        if keys:
            self._unmatched.asked(model, matched=matched)
        return response

    def _check_model(self, model: str) -> None:
        if not model:
            raise InvalidRequestError("model is not set")
        if not self._index.pods_of(model) and model not in self._configured_models:
            raise UnknownModelError(model, [*self._index.models(), *self._configured_models])

    def _answer(
        self, response: scoring_pb2.ScoreResponse, match: PrefixMatch, pods: Collection[str]
    ) -> bool:
        """Fill in the pods; whether any of them holds a block."""
        any_matched = False
        block_size = response.block_size
        add = response.pods.add
        streams = self._streams
        now = time.monotonic()
        for pod in pods:
            best = match.best_of(pod)
            if best is None:
                response.unknown_pods.append(pod)
                continue
            state, reason, silent, as_of = streams[best.worker].standing(now)
            score = add(
                pod=pod,
                rank=best.worker.rank,
                trust_state=TRUST_STATES[state],
                trust_reason=reason,
                silent_seconds=silent,
                as_of_sequence=as_of,
            )
            blocks = best.matched_blocks
            if blocks:
                any_matched = True
                score.score = best.score
                score.matched_blocks = blocks
                score.matched_tokens = blocks * block_size
                for tier, count in best.by_tier.items():
                    score.matched_blocks_by_tier[tier] = count
        return any_matched
