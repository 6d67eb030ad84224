"""What looks misconfigured, judged by the events that arrive and the prompts that are scored."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import structlog

from indexer import DEFAULT_TIER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from indexer import Index, Worker
    from kvevents import StreamReport
    from service.replication import Workers

_ENOUGH_BLOCKS = 32  # blocks of a rank, all skipped, before its events count as never resolved
_ENOUGH_PROMPTS = 500  # prompts of a model without a match before that counts as a fault
_LOG_SECONDS = 5.0  # how often the log is brought up to date

_CAUSES = {  # why most of a rank's blocks were skipped -> the likely cause
    "block_size_mismatch": "its blocks have another size than those it announced before",
    "unknown_parent": "all its blocks continue blocks that were announced before kvatlas listened: "
    "give the source a replay socket, or restart the engine",
    "unknown_hash": "it announces blocks without tokens that it never announced with tokens",
    "unnamed_adapter": "the engine gives LoRA adapters by number alone",
    "undecodable_frame": "the payloads are not KV events: is another publisher at this endpoint?",
}
_HARMLESS = frozenset({"not_held", "contradictions"})  # skipped for reasons of the engine's own

_log = structlog.get_logger("kvatlas.service")


class Finding(NamedTuple):
    """Something that looks misconfigured."""

    kind: str
    """In one word, such as block_sizes_differ; see `FleetWarning` in fleet.proto."""
    model: str
    pods: tuple[str, ...]
    """Sorted; empty if every pod of the model is concerned."""
    detail: str
    """The likely cause, for a person to read."""


class UnmatchedPrompts:
    """Counts, by model, the prompts in a row that matched no block of any pod."""

    def __init__(self) -> None:
        self.in_a_row: Counter[str] = Counter()

    def record(self, model: str, *, matched: bool) -> None:
        """Count a prompt of at least one full block."""
        if matched:
            self.in_a_row.pop(model, None)
        else:
            self.in_a_row[model] += 1


class Diagnostics:
    """Finds misconfigurations, and logs them as they come and go."""

    def __init__(
        self,
        index: Index,
        workers: Workers,
        unmatched: UnmatchedPrompts,
        tier_weights: Collection[str] = DEFAULT_TIER_WEIGHTS,
        engine_findings: Callable[[], Iterable[Finding]] = tuple,
    ) -> None:
        """Args: engine_findings: what looks wrong with engines, by what they tell themselves."""
        self._engine_findings = engine_findings
        self._tier_weights = tier_weights
        self._index = index
        self._workers = workers
        self._unmatched = unmatched
        self._logged: dict[tuple[str, str, tuple[str, ...]], Finding] = {}

    async def run(self) -> None:
        """Log changes every few seconds, for ever."""
        while True:
            await asyncio.sleep(_LOG_SECONDS)
            self.log_changes()

    def log_changes(self) -> None:
        """Log the findings that are new since the last call, and those that are gone."""
        current = {finding[:3]: finding for finding in self.findings()}
        for name in current.keys() - self._logged.keys():
            _log.warning("misconfigured", **current[name]._asdict())
        for kind, model, pods in self._logged.keys() - current.keys():
            _log.info("no_longer_misconfigured", kind=kind, model=model, pods=pods)
        self._logged = current

    def findings(self) -> list[Finding]:
        """Everything that looks misconfigured now."""
        by_model: dict[str, dict[Worker, StreamReport]] = {}
        now = time.monotonic()
        for worker, model in self._workers.models():
            by_model.setdefault(model, {})[worker] = self._workers.report(worker, now)
        findings = [*self._tiers_without_weight()]
        for model, reports in by_model.items():
            findings += _block_sizes_differ(model, reports)
            for worker, report in reports.items():
                findings += _worker_findings(worker, model, report)
        return [*findings, *self._never_matched(), *self._engine_findings()]

    def _tiers_without_weight(self) -> Iterator[Finding]:
        pods: dict[tuple[str, str], set[str]] = {}
        for blocks in self._index.workers():
            for tier in self._workers.blocks_by_tier(blocks):
                if tier not in self._tier_weights:
                    pods.setdefault((blocks.model, tier), set()).add(blocks.worker.pod)
        for (model, tier), names in pods.items():
            detail = (
                f"blocks in the tier {tier!r} add nothing to scores: give it a weight in "
                "index.tier_weights"
            )
            yield Finding("tier_without_weight", model, tuple(sorted(names)), detail)

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
                    "from the engines' (another tokenizer or chat template?), requests leave out "
                    "an adapter, a cache salt or an image, or the prompts have nothing in common"
                )
                yield Finding("scores_never_match", model, (), detail)


def _block_sizes_differ(model: str, reports: dict[Worker, StreamReport]) -> Iterator[Finding]:
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


def _worker_findings(worker: Worker, model: str, report: StreamReport) -> Iterator[Finding]:
    if report.rivals:
        detail = (
            f"{report.rivals + 1} live connections send events of rank {worker.rank}: were engines "
            "started with the same topic, or is a source configured twice? Give each engine a "
            "topic with its own address; until then only the first one's events are applied, and "
            "the pod is never exact"
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
        cause = _CAUSES.get(reason, "`kvatlas pods` shows why its events were skipped")
        detail = f"no block of rank {worker.rank} was ever understood ({reason}): {cause}"
        yield Finding("events_never_resolve", model, (worker.pod,), detail)
