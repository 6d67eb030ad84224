"""ScoringService: prompts -> scores of pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc
from typing_extensions import override

from indexer import PromptKeys
from service.rpc.bounds.names import check_name
from service.rpc.bounds.turns import LongWork
from service.rpc.errors import (
    KNOWN_ERRORS,
    InvalidRequestError,
    NthRequestError,
    TooLargeError,
    UnknownModelError,
)
from service.rpc.trust_states import TRUST_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from grpc.aio import ServicerContext

    from indexer import Index, KeyScheme, TrustState
    from service.diagnostics import UnmatchedPrompts
    from service.metrics import AnswerMetrics
    from service.replication import PromptMatch, Replica
    from service.rpc.bounds import CallBounds
    from service.rpc.prompts import PromptReader

_TOKENS_AT_ONCE = 65_536  # of a prompt, whose keys take less than a millisecond


class ScoringServicer(scoring_pb2_grpc.ScoringServiceServicer):
    """Answers `Score` and `ScoreMany`.

    Once a prompt is tokenized, nothing waits for a pod. A call waits for the store if the index is
    shared and this process's copy of it is too old. Long calls work in slices, see `bounds.turns`.
    """

    def __init__(
        self,
        index: Index,
        replica: Replica,
        prompts: PromptReader,
        scheme_of: Callable[[str], KeyScheme],
        configured_models: Collection[str],
        unmatched: UnmatchedPrompts,
        answers: AnswerMetrics,
        bounds: CallBounds,
    ) -> None:
        self._index = index
        self._replica = replica
        self._prompts = prompts
        self._limits = prompts.limits
        self._scheme_of = scheme_of
        self._configured_models = configured_models
        self._unmatched = unmatched
        self._answers = answers
        self._turns = bounds.turns

    @override
    async def Score(
        self,
        request: scoring_pb2.ScoreRequest,
        context: ServicerContext[scoring_pb2.ScoreRequest, scoring_pb2.ScoreResponse],
    ) -> scoring_pb2.ScoreResponse:
        return await self._score(request, LongWork(self._turns, context), self._limits.call_tokens)

    @override
    async def ScoreMany(
        self,
        request: scoring_pb2.ScoreManyRequest,
        context: ServicerContext[scoring_pb2.ScoreManyRequest, scoring_pb2.ScoreManyResponse],
    ) -> bytes:
        """Return an encoded `ScoreManyResponse`.

        It is encoded response by response: the encodings of a message's parts, one after the
        other, are that of the message.
        """
        limits, work = self._limits, LongWork(self._turns, context)
        if len(request.requests) > limits.prompts:
            raise TooLargeError(
                f"there are {len(request.requests)} requests, the limit is {limits.prompts}",
                "prompts",
            )
        encoded: list[bytes] = []
        tokens_left, bytes_left = limits.call_tokens, int(limits.answer_bytes)
        for index, one in enumerate(request.requests):
            try:
                response = await self._score(one, work, tokens_left)
            except KNOWN_ERRORS as error:
                raise NthRequestError(index, error) from error
            encoded.append(scoring_pb2.ScoreManyResponse(responses=[response]).SerializeToString())
            tokens_left -= response.total_tokens
            bytes_left -= len(encoded[-1])
            if bytes_left < 0:
                raise TooLargeError(
                    f"the answer has more than {limits.answer_bytes} bytes", "answer_bytes"
                )
            await work.pause()
        return b"".join(encoded)

    async def _score(
        self, request: scoring_pb2.ScoreRequest, work: LongWork, tokens_left: int
    ) -> scoring_pb2.ScoreResponse:
        model = request.model
        self._check_model(model)
        self._check_names(request)
        tokens, items, salt = await self._prompts.read_score(request, work.time_remaining())
        if len(tokens) > tokens_left:
            raise TooLargeError(
                f"the prompts have more than {self._limits.call_tokens} tokens together",
                "call_tokens",
            )
        prompt = PromptKeys(self._scheme_of(model), tokens, request.lora_name, items, salt)
        if prompt.tokens > _TOKENS_AT_ONCE:
            for _ in prompt.make_keys(_TOKENS_AT_ONCE):
                await work.pause()
        matched = await self._replica.match(model, prompt)
        response = scoring_pb2.ScoreResponse(
            total_blocks=prompt.tokens // prompt.block_size,
            total_tokens=prompt.tokens,
            block_size=prompt.block_size,
            copy_behind_seconds=matched.copy_behind_seconds,
        )
        longest, state = self._add_pods(response, matched, request.pods)
        if response.total_blocks:
            self._answers.matched(longest, response.total_blocks, state)
            self._unmatched.record(model, matched=longest > 0)
        return response

    def _check_model(self, model: str) -> None:
        if not model:
            raise InvalidRequestError("model is not set")
        if not self._index.pods_of(model) and model not in self._configured_models:
            raise UnknownModelError(model, {*self._index.models(), *self._configured_models})

    def _check_names(self, request: scoring_pb2.ScoreRequest) -> None:
        limits = self._limits
        check_name("lora_name", request.lora_name, limits.name_bytes)
        if len(request.pods) > limits.pods:
            raise TooLargeError(
                f"the request names {len(request.pods)} pods, the limit is {limits.pods}", "pods"
            )

    def _add_pods(
        self, response: scoring_pb2.ScoreResponse, matched: PromptMatch, named: Collection[str]
    ) -> tuple[int, TrustState | None]:
        """Add the scores of the named pods, or of all; without a pause, in which pods may leave.

        Returns the blocks of the longest match, and the trust state of the pod that has it.
        """
        longest, trusted = 0, None
        block_size, add = response.block_size, response.pods.add
        best_of, status_of, now = matched.match.best_of, matched.status_of, matched.now
        for pod in dict.fromkeys(named) if named else matched.pods:
            best = best_of(pod)
            if best is None:
                check_name("pods", pod, self._limits.name_bytes)
                response.unknown_pods.append(pod)
                continue
            state, reason, silent, as_of = status_of(best.worker, now)
            score = add(
                pod=pod,
                rank=best.worker.rank,
                trust_state=TRUST_STATES[state],
                trust_reason=reason,
                silent_seconds=silent,
                as_of_sequence=as_of,
            )
            # Fields that are zero are not set: setting one costs more than asking.
            if best.reusable_is_bound:
                score.reusable_is_bound = True
            if best.reusable_tokens:
                score.reusable_tokens = best.reusable_tokens
            blocks = best.matched_blocks
            if blocks:
                if blocks > longest:
                    longest, trusted = blocks, state
                score.score = best.score
                score.matched_blocks = blocks
                score.matched_tokens = blocks * block_size
                for tier, count in best.by_tier.items():
                    score.matched_blocks_by_tier[tier] = count
        return longest, trusted
