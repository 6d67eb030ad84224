"""One prompt -> the scores of pods, encoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kvatlas.v1 import scoring_pb2

from indexer import PromptKeys
from service.kernel import PodScoreWriter
from service.rpc.bounds.names import check_name
from service.rpc.errors import (
    CallTooLargeError,
    InvalidRequestError,
    TooLargeError,
    UnknownModelError,
)
from service.rpc.trust_states import TRUST_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from indexer import Index, KeyScheme
    from service.diagnostics import UnmatchedPrompts
    from service.kernel import WrittenScores
    from service.metrics import AnswerMetrics
    from service.replication import Replica
    from service.rpc.bounds import LongWork
    from service.rpc.prompts import PromptReader

_TOKENS_AT_ONCE = 65_536  # of a prompt, whose keys take less than a millisecond; with items, four
_BYTES_AT_ONCE = 65_536  # of a request, which has no more token ids than bytes
_TOKEN_ID_FIELDS = {"token_ids", "packed_token_ids"}


class ScoredPrompt(NamedTuple):
    """The answer about one prompt."""

    encoded: bytes
    """A `ScoreResponse`."""
    tokens: int
    """Tokens of the prompt."""


class Scorer:
    """Scores prompts.

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
    ) -> None:
        self._index = index
        self._replica = replica
        self._prompts = prompts
        self.limits = prompts.limits
        self._scheme_of = scheme_of
        self._configured_models = frozenset(configured_models)
        self._unmatched = unmatched
        self._answers = answers
        self._writer = PodScoreWriter(TRUST_STATES)

    def is_immediate(self, request: scoring_pb2.ScoreRequest, size: int) -> bool:
        """Whether `score` has nothing to wait for, and takes a millisecond at most.

        size: bytes of the request.
        """
        if size > _BYTES_AT_ONCE or self._replica.may_wait:
            return False
        return request.prompt.WhichOneof("input") in _TOKEN_ID_FIELDS

    async def score(
        self, request: scoring_pb2.ScoreRequest, work: LongWork, tokens_left: int
    ) -> ScoredPrompt:
        """Score the prompt of a request.

        tokens_left: how many tokens the prompt may have.

        Raises KNOWN_ERRORS.
        """
        model = request.model
        self._check_model(model)
        self._check_names(request)
        tokens, items, salt = await self._prompts.read_score(request, work)
        if len(tokens) > tokens_left:
            raise CallTooLargeError(
                f"the prompts have more than {self.limits.call_tokens} tokens together",
                "call_tokens",
            )
        prompt = PromptKeys(self._scheme_of(model), tokens, request.lora_name, items, salt)
        if prompt.tokens > _TOKENS_AT_ONCE:
            for _ in prompt.make_keys(_TOKENS_AT_ONCE // (4 if items or salt else 1)):
                await work.pause()
        matched = await self._replica.match(model, prompt)
        # Without a pause from here on, in which pods could leave.
        written = self._writer.write(
            matched.match,
            dict.fromkeys(request.pods) if request.pods else matched.pods,
            matched.status_of,
            matched.now,
            prompt.block_size,
            request.only_holders,
            request.max_pods,
        )
        return self._answer(prompt, written, matched.copy_behind_seconds, model)

    def _answer(
        self, prompt: PromptKeys, written: WrittenScores, behind: float | None, model: str
    ) -> ScoredPrompt:
        for pod in written.unknown:
            check_name("pods", pod, self.limits.name_bytes)
        rest = scoring_pb2.ScoreResponse(
            unknown_pods=written.unknown,
            total_blocks=prompt.tokens // prompt.block_size,
            total_tokens=prompt.tokens,
            block_size=prompt.block_size,
            copy_behind_seconds=behind,
        )
        if rest.total_blocks:
            self._answers.matched(written.longest, rest.total_blocks, written.trust_state)
            self._unmatched.record(model, matched=written.longest > 0)
        # The encodings of a message's parts, one after the other, are that of the message.
        return ScoredPrompt(written.encoded + rest.SerializeToString(), prompt.tokens)

    def _check_model(self, model: str) -> None:
        if not model:
            raise InvalidRequestError("model is not set")
        if model not in self._configured_models and not self._index.pods_of(model):
            raise UnknownModelError(model, {*self._index.models(), *self._configured_models})

    def _check_names(self, request: scoring_pb2.ScoreRequest) -> None:
        limits = self.limits
        check_name("lora_name", request.lora_name, limits.name_bytes)
        if len(request.pods) > limits.pods:
            raise TooLargeError(
                f"the request names {len(request.pods)} pods, the limit is {limits.pods}", "pods"
            )
