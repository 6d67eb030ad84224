"""Explains the scores of a prompt: each rank's prefix, and the usual suspects."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from indexer import CacheLayout, Inspection, WorkerBlocks
from service.explaining.held import HeldBlocks
from service.explaining.rank import RankFacts, measure, reason_of, sought_keys
from service.explaining.reasons import summary_of
from service.explaining.suspecting import (
    Seen,
    Suspects,
    near_misses,
    stores_with_other_items,
)
from service.explaining.touches import RecentTouches

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from indexer import KeyScheme, MemoryIndex, PromptKeys, Worker, WorkerMatch
    from kvevents import WorkerStream
    from service.explaining.asked import AskedPrompt, Turn
    from service.explaining.rank import ExplainedRank
    from service.explaining.suspecting import Suspect
    from service.replication import PromptMatch, Replica

_MOST_PODS = 64
_MOST_RANKS = 8  # of a pod
_NEXT_BEST = 3
_MOST_WORKERS_ASKED = 256  # for adapters and salts that they have seen


class ExplainedPod(NamedTuple):
    """Why one pod has the score that it has."""

    pod: str
    ranks: Sequence[ExplainedRank]
    """The best one first; of many, only some."""
    ranks_left_out: int


@dataclass(slots=True)
class Explanation:
    """Why the scores of a prompt are what they are."""

    asked: AskedPrompt
    keys: PromptKeys
    tries_salts: bool
    """Whether other salts were tried."""
    pods: list[ExplainedPod] = field(default_factory=list)
    pods_left_out: int = 0
    unknown: list[str] = field(default_factory=list)
    """Requested pods that do not serve the model."""
    holders: int = 0
    """Pods of the model that hold a block of the prompt."""
    pod_count: int = 0
    """Pods that serve the model."""
    best: WorkerMatch | None = None
    """The match of the rank that holds most, of all pods of the model."""
    suspects: list[Suspect] = field(default_factory=list)
    steps: list[tuple[str, float]] = field(default_factory=list)
    """What was done, and how many seconds it took."""
    copy_behind_seconds: float | None = None


class Explainer:
    """Explains scores. It asks the same index as a score does, and changes nothing in it.

    Args:
        index: this process's part of the index.
        replica: matches prompts, and knows the workers.
        scheme_of: model -> its block keys.
        speculative_of: model and prompt -> worker -> its leading blocks that are speculative.
    """

    def __init__(
        self,
        index: MemoryIndex,
        replica: Replica,
        scheme_of: Callable[[str], KeyScheme],
        speculative_of: Callable[[str, PromptKeys], Mapping[Worker, int]],
    ) -> None:
        self._index = index
        self._speculative_of = speculative_of
        self._replica = replica
        self._inspection = Inspection(index)
        self._suspects = Suspects(self._inspection, replica, scheme_of)

    async def explain(
        self,
        asked: AskedPrompt,
        wanted: Collection[str] | None,
        turn: Turn,
        *,
        tries_salts: bool,
    ) -> Explanation:
        """Explain the scores of a prompt. Raises StoreError.

        Args:
            asked: the prompt.
            wanted: names of the pods to explain; None: all.
            turn: of the call.
            tries_salts: whether the caller may learn that it is held under a salt of others.
        """
        clock = _Clock()
        keys = await asked.make_keys(turn)
        explanation = Explanation(asked, keys, tries_salts, steps=clock.steps)
        clock.end("keys")
        matched = await self._replica.match(asked.model, keys)
        clock.end("match")
        explanation.copy_behind_seconds = matched.copy_behind_seconds
        matches = _matches(matched)
        await self._explain_pods(explanation, matched, matches, wanted, turn)
        clock.end("explain")
        held = {match.worker: match.matched_blocks for match in matches}
        seen = self._seen(asked.model)
        if not tries_salts:
            seen = seen._replace(salts=())
        ranks = [rank for pod in explanation.pods for rank in pod.ranks]
        explanation.suspects = await self._suspects.find(asked, seen, held, turn)
        explanation.suspects += near_misses(asked, ranks)
        clock.end("suspects")
        return explanation

    async def _explain_pods(
        self,
        explanation: Explanation,
        matched: PromptMatch,
        matches: Sequence[WorkerMatch],
        wanted: Collection[str] | None,
        turn: Turn,
    ) -> None:
        asked, keys = explanation.asked, explanation.keys
        # Without a pause up to the facts, in which pods could leave.
        speculative = self._speculative_of(asked.model, keys)
        _count(explanation, matches)
        pods = self._choose(explanation, matched, wanted)
        facts = [self._facts(explanation, matched, each) for pod in pods for each in pods[pod][1]]
        for each in facts:
            known, own = speculative.get(each.worker, 0), each.match.matched_blocks
            each.speculative = max(0, known - own)
        await self._look_up_held(asked, facts, keys, turn)
        ranks = {}
        for each in facts:
            ranks[each.worker] = await self._explain_rank(each, asked, matches, turn)
        explanation.pods = [
            ExplainedPod(pod, [ranks[match.worker] for match in chosen], count - len(chosen))
            for pod, (count, chosen) in pods.items()
        ]

    def _choose(
        self, explanation: Explanation, matched: PromptMatch, wanted: Collection[str] | None
    ) -> dict[str, tuple[int, list[WorkerMatch]]]:
        """Return, of the pods to explain, how many ranks each has, and the best of them."""
        ranks: dict[str, tuple[int, list[WorkerMatch]]] = {}
        for pod in matched.pods if wanted is None else wanted:
            known = sorted(matched.match.ranks_of(pod) or (), key=_goodness, reverse=True)
            if known:
                ranks[pod] = len(known), known[:_MOST_RANKS]
            else:
                explanation.unknown.append(pod)
        best = sorted(ranks, key=lambda pod: _goodness(ranks[pod][1][0]), reverse=True)
        chosen = set(best[:_MOST_PODS])
        explanation.pods_left_out = len(ranks) - len(chosen)
        return {pod: found for pod, found in ranks.items() if pod in chosen}

    def _facts(
        self, explanation: Explanation, matched: PromptMatch, match: WorkerMatch
    ) -> RankFacts:
        asked, worker, workers = explanation.asked, match.worker, self._replica.workers
        known = self._inspection.blocks_of(worker)
        known = known or WorkerBlocks(worker, asked.model, {}, CacheLayout())
        layout = workers.cache_layout(known)
        size = layout.key_block_size or asked.block_size
        return RankFacts(
            worker=worker,
            match=match,
            status=matched.status_of(worker, matched.now),
            report=workers.report(worker, matched.now),
            layout=layout,
            owner=workers.owner(worker),
            blocks=sum(workers.blocks_by_tier(known).values()),
            held=None,
            keys=array("Q"),
            key_block_size=size,
            tokens=len(asked.tokens),
            block_size=asked.block_size,
        )

    async def _look_up_held(
        self, asked: AskedPrompt, facts: Iterable[RankFacts], keys: PromptKeys, turn: Turn
    ) -> None:
        """Find out which single blocks each rank holds, where that is known here."""
        by_size: dict[int, HeldBlocks] = {}
        for each in facts:
            size = each.key_block_size
            each.keys = keys.block_keys(size)
            if not (self._replica.has_all_blocks or each.worker in self._streams):
                continue
            held = by_size.get(size)
            if held is None:
                held = by_size[size] = HeldBlocks(self._inspection)
                await held.look_up(asked.model, each.keys, turn)
            each.held = held.by_group(each.worker, each.layout)
            await turn.pause()

    @property
    def _streams(self) -> Mapping[Worker, WorkerStream]:
        return self._replica.listener.router.streams

    async def _explain_rank(
        self,
        facts: RankFacts,
        asked: AskedPrompt,
        matches: Sequence[WorkerMatch],
        turn: Turn,
    ) -> ExplainedRank:
        rank = measure(facts)
        stream, missing, waits = self._streams.get(facts.worker), rank.missing, False
        if stream is not None and missing is not None:
            sought = sought_keys(rank)
            recent = RecentTouches(stream, time.monotonic())
            await recent.resolve(self._inspection, sought, turn)
            rank.touches = recent.of_keys(sought)
            tokens = array("Q", asked.tokens[missing.first_token : missing.end_token])
            waits = stream.applier.orphans.has_block(tokens)
            rank.has_other_items = stores_with_other_items(stream, tokens)
        rank.reason = reason_of(rank, is_local=stream is not None, waits=waits)
        rank.summary = summary_of(rank)
        if missing is not None:
            beyond = (m for m in matches if m.matched_blocks > facts.match.matched_blocks)
            rank.next_best = sorted(beyond, key=_goodness, reverse=True)[:_NEXT_BEST]
        await turn.pause()
        return rank

    def _seen(self, model: str) -> Seen:
        streams = [stream for stream in self._streams.values() if stream.model == model]
        roots = [stream.applier.roots for stream in streams[:_MOST_WORKERS_ASKED]]
        return Seen(
            {name for root in roots for name in root.adapters},
            {salt for root in roots for salt in root.salts},
            {token for root in roots for token in root.first_tokens},
            self._index.models(),
        )


class _Clock:
    """Measures steps."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, float]] = []
        self._began = time.perf_counter()

    def end(self, step: str) -> None:
        now = time.perf_counter()
        self.steps.append((step, now - self._began))
        self._began = now


def _matches(matched: PromptMatch) -> list[WorkerMatch]:
    """Return the match of every rank."""
    return [match for pod in matched.pods for match in matched.match.ranks_of(pod) or ()]


def _count(explanation: Explanation, matches: Sequence[WorkerMatch]) -> None:
    explanation.pod_count = len({match.worker.pod for match in matches})
    explanation.holders = len({m.worker.pod for m in matches if m.matched_blocks})
    explanation.best = max(matches, key=_goodness, default=None)


def _goodness(match: WorkerMatch) -> tuple[float, int, int]:
    return match.score, match.matched_blocks, -match.worker.rank
