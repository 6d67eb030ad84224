"""What looks misconfigured, judged by what arrives and what is asked for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import structlog

from indexer import DEFAULT_TIER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from indexer import Index, Worker
    from kvevents import StreamReport
    from service.replication import Workers

_ENOUGH_BLOCKS = 32
_ENOUGH_PROMPTS = 500
_LOOK_SECONDS = 5.0

_CAUSES = {
    "block_size_mismatch": "its blocks have another size than those that it announced before",
    "unknown_parent": "all that was announced continues blocks from before kvatlas listened: give "
    "the source a replay socket, or restart the engine",
    "unknown_hash": "blocks are announced without their tokens, and were never announced with them",
    "unnamed_adapter": "the engine gives LoRA adapters by number alone",
    "undecodable_frame": "the payloads are no KV events: is another publisher at this endpoint?",
}
_HARMLESS = frozenset({"not_held", "contradictions"})

_log = structlog.get_logger("kvatlas.service")


class Finding(NamedTuple):
    """Something that looks misconfigured; pods is empty for all that serve the model."""

    kind: str
    model: str
    pods: tuple[str, ...]
    detail: str


class UnmatchedPrompts:
    """How many prompts in a row, by model, matched nothing although pods hold blocks."""

    def __init__(self) -> None:
        self.in_a_row: Counter[str] = Counter()

    def asked(self, model: str, *, matched: bool) -> None:
        """A prompt of at least one full block was asked for."""
        if matched:
            self.in_a_row.pop(model, None)
        else:
            self.in_a_row[model] += 1


class Diagnostics:
    """Looks for it; within an `async with` block the log tells of what appears and what is gone."""

    def __init__(
        self,
        index: Index,
        workers: Workers,
        unmatched: UnmatchedPrompts,
        tier_weights: Collection[str] = DEFAULT_TIER_WEIGHTS,
    ) -> None:
        self._tier_weights = tier_weights
        self._index = index
        self._workers = workers
        self._unmatched = unmatched
        self._told: dict[tuple[str, str, tuple[str, ...]], Finding] = {}

    async def __aenter__(self) -> None:
        self._watching = asyncio.create_task(self._watch(), name="misconfiguration")

    async def __aexit__(self, *exc_info: object) -> None:
        self._watching.cancel()
        await asyncio.wait([self._watching])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.tell()

    def tell(self) -> None:
        """Log what was not there before, and what is no more."""
        found = {suspicion[:3]: suspicion for suspicion in self.found()}
        for name in found.keys() - self._told.keys():
            _log.warning("misconfigured", **found[name]._asdict())
        for kind, model, pods in self._told.keys() - found.keys():
            _log.info("no_longer_misconfigured", kind=kind, model=model, pods=pods)
        self._told = found

    def found(self) -> list[Finding]:
        """All there is now."""
        by_model: dict[str, dict[Worker, StreamReport]] = {}
        now = time.monotonic()
        for worker, model in self._workers.models():
            by_model.setdefault(model, {})[worker] = self._workers.report(worker, now)
        found: list[Finding] = [*self._tiers_without_weight()]
        for model, reports in by_model.items():
            found += self._block_sizes(model, reports)
            for worker, report in reports.items():
                found += _of_worker(worker, model, report)
        return [*found, *self._never_matched()]

    def _tiers_without_weight(self) -> Iterator[Finding]:
        pods: dict[tuple[str, str], set[str]] = {}
        for blocks in self._index.workers():
            for tier in self._workers.blocks_by_tier(blocks):
                if tier not in self._tier_weights:
                    pods.setdefault((blocks.model, tier), set()).add(blocks.worker.pod)
        for (model, tier), names in pods.items():
            detail = (
                f"blocks in the tier {tier!r} add nothing to scores: say what they are worth in "
                "index.tier_weights"
            )
            yield Finding("tier_without_weight", model, tuple(sorted(names)), detail)

    @staticmethod
    def _block_sizes(model: str, reports: dict[Worker, StreamReport]) -> Iterator[Finding]:
        pods_by_size: dict[int, set[str]] = {}
        for worker, report in reports.items():
            if report.engine_block_size is not None:
                pods_by_size.setdefault(report.engine_block_size, set()).add(worker.pod)
        if len(pods_by_size) > 1:
            sizes = "; ".join(
                f"{size} tokens on {', '.join(sorted(pods))}"
                for size, pods in sorted(pods_by_size.items())
            )
            pods = tuple(sorted(set().union(*pods_by_size.values())))
            detail = f"engines have blocks of {sizes}: were they started with different flags?"
            yield Finding("block_sizes_differ", model, pods, detail)

    def _never_matched(self) -> Iterator[Finding]:
        held = {
            blocks.model
            for blocks in self._index.workers()
            if any(self._workers.blocks_by_tier(blocks).values())
        }
        for model, count in self._unmatched.in_a_row.items():
            if count >= _ENOUGH_PROMPTS and model in held:
                detail = (
                    f"the last {count} prompts matched no block of any pod: their tokens differ "
                    "from the engines' (another tokenizer or chat template?), an adapter, a cache "
                    "salt or an image is not said, or the prompts have nothing in common"
                )
                yield Finding("scores_never_match", model, (), detail)


def _of_worker(worker: Worker, model: str, report: StreamReport) -> Iterator[Finding]:
    if report.rivals:
        detail = (
            f"{report.rivals + 1} live connections speak for rank {worker.rank}: engines that were "
            "started with one and the same topic, or a source that is configured twice? Give each "
            "engine a topic with its own address; the first one is heard, and never called exact"
        )
        yield Finding("two_engines_one_name", model, (worker.pod,), detail)
    if report.foreign_replay:
        yield Finding("wrong_replay_socket", model, (worker.pod,), report.foreign_replay)
    if report.resolved:
        return
    unresolved = Counter(
        {reason: n for reason, n in report.skipped.items() if reason not in _HARMLESS}
    )
    unresolved["unknown_parent"] += report.orphan_blocks
    if unresolved.total() >= _ENOUGH_BLOCKS:
        reason, _ = unresolved.most_common(1)[0]
        cause = _CAUSES.get(reason, "see what the pod's events were skipped for")
        detail = f"no block of rank {worker.rank} was ever understood ({reason}): {cause}"
        yield Finding("events_never_resolve", model, (worker.pod,), detail)
