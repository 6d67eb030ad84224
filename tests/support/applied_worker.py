"""One worker's applier with the index that it writes, and its trust: all of them real."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from indexer import KeyScheme, MemoryIndex, TrustState, Worker
from kvevents.applying import Applier, Orphans
from kvevents.budget import Budget
from kvevents.trust import StartedEmpty, Trust, TrustChange
from support.engines.wire import decoded
from support.given_keys import GivenKeys

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKER = Worker("a:1", 0)
SIZE = 16


class AppliedWorker:
    """A worker's applier with the index that it writes; its trust has seen the first frame."""

    def __init__(self, *, count_copies: bool = True, orphan_bytes: int = 100_000) -> None:
        self.index = MemoryIndex(2**26, count_copies=count_copies)
        self.index.join(WORKER, "m")
        self.trust = Trust()
        self.trust.follow(StartedEmpty())
        self.scheme = KeyScheme("m", SIZE, "")
        orphans = Orphans(Budget(orphan_bytes), count_copies=count_copies)
        self.applier = Applier(
            self.index, WORKER, self.scheme, self.trust, orphans, count_copies=count_copies
        )

    def apply(self, *events: Any) -> None:
        """Apply one batch."""
        self.follow(self.applier.apply_batch(decoded(*events)))

    def follow(self, changes: Sequence[TrustChange]) -> None:
        """Let the worker's trust follow what the applier returned."""
        for change in changes:
            self.trust.follow(change)

    def matched(self, *blocks: list[int], adapter: str = "") -> dict[str, int]:
        """Leading blocks of the prompt by tier."""
        tokens = [token for block in blocks for token in block]
        keys = self.scheme.keys(self.scheme.root(adapter or None), array("Q", tokens))
        match = self.index.match("m", GivenKeys(keys)).best_of(WORKER.pod)
        return dict(match.by_tier) if match else {}

    @property
    def state(self) -> tuple[TrustState, str]:
        return self.trust.state, self.trust.reason

    @property
    def skipped(self) -> dict[str, int]:
        return dict(self.applier.counts.skipped)
