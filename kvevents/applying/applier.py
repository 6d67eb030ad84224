"""Event -> index writes: what each event of a worker does to the index.

`EventCounts` counts, for each worker, the applied events by type, and by reason every event and
block that could not be applied; the worker's trust follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from indexer import TrustState
from kvevents.applying.cache_groups import CacheGroups
from kvevents.applying.event_applier import EventApplier
from kvevents.applying.familiar import FamiliarForms
from kvevents.applying.index_writer import IndexWriter
from kvevents.applying.pieces import (
    EVENT_WEIGHT,
    PIECE_KEYS,
    exhaust,
    hash_count,
    is_short,
    pieces_of,
)
from kvevents.trust import Downgrade
from kvevents.wire import (
    DECODE_ERRORS,
    ExtraStrings,
    TierClass,
    class_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from indexer import Index, KeyScheme, Worker
    from kvevents.applying.cache_groups import EngineSettings
    from kvevents.applying.orphans import Orphans
    from kvevents.applying.roots import SeenRoots
    from kvevents.trust import Trust, TrustChange
    from kvevents.wire import Batch, Event


_log = structlog.get_logger("kvatlas.kvevents")


class Applier:
    """Applies one worker's events to the index, in the order in which they are given.

    The worker must have joined the index.

    Args:
        index, worker, scheme: where the blocks are written, whose they are, and their keys.
        trust: only read, to tell contradictions; changes are returned.
        extra_strings: how plain strings among extra keys are read.
        count_copies: whether a block announced again has one more copy; see `Index`.
        settings: what the worker's engine was started with.

    Attributes:
        counts: what happened to the events so far.
        orphans: the worker's blocks that wait.
        groups: the worker's cache groups.
    """

    def __init__(
        self,
        index: Index,
        worker: Worker,
        scheme: KeyScheme,
        trust: Trust,
        orphans: Orphans,
        extra_strings: ExtraStrings = ExtraStrings.AUTO,
        count_copies: bool = True,
        settings: EngineSettings | None = None,
    ) -> None:
        self._index = index
        self._worker = worker
        self.groups = CacheGroups(scheme.block_size, settings)
        self._writer = IndexWriter(
            index,
            worker,
            scheme,
            trust,
            orphans,
            self.groups,
            extra_strings,
            count_copies=count_copies,
        )
        self.counts, self.orphans = self._writer.counts, orphans
        self.take_trust_changes = self._writer.take_trust_changes
        self._familiar = FamiliarForms(self._writer, self.groups)
        self._events = EventApplier(index, worker, self._writer, self.groups, trust, self._familiar)
        self._places = self._events.places

    @property
    def has_resolved(self) -> bool:
        """Whether the meaning of any engine hash was ever learned."""
        return self._writer.has_resolved

    @property
    def roots(self) -> SeenRoots:
        """What the worker's sequences have begun with."""
        return self._writer.roots

    @property
    def named_tiers(self) -> set[str]:
        """The tiers that the worker's events have named."""
        return self._places.named_tiers

    def read_extra_strings_as(self, extra_strings: ExtraStrings) -> None:
        """Change how plain strings among extra keys are read."""
        self._writer.extra_strings = extra_strings
        self._familiar.clear()

    def is_short(self, batch: Batch) -> bool:
        """Whether a batch is applied at once; blocks that wait for one of its may be many."""
        return is_short(batch, self.groups.span) and not self.orphans

    def apply_batch(self, batch: Batch) -> Sequence[TrustChange]:
        """Apply the events of a batch; returns the changes of the worker's trust, in order."""
        if self.is_short(batch):
            return self.apply_short_batch(batch)
        exhaust(self.apply_in_slices(batch))
        return self.take_trust_changes()

    def apply_short_batch(self, batch: Batch) -> Sequence[TrustChange]:
        """Do as `apply_batch`, at once; the batch `is_short`."""
        decisions: list[Any] = [*map(self._familiar.find, batch.events)]
        familiar: Any
        if None in decisions or batch.skipped:
            self._try(self._learn_groups, batch.events)
            for event in batch.events:
                self.counts.events[type(event).__name__] += self._try(self._events.apply, event)
                exhaust(self._store_adopted())
            exhaust(self._finish(batch))
        else:
            self._events.begin_batch()
            for familiar, decision in zip(batch.events, decisions, strict=True):
                try:  # as `_try` does, which a call in between would slow down
                    self._familiar.store(familiar, decision)
                    self.counts.events["BlockStored"] += 1
                except Exception:  # noqa: BLE001 - counted, and shown in every answer
                    self._on_internal_error()
                if self._writer.has_adopted:
                    exhaust(self._store_adopted())
            self._writer.on_batch_end()
        return self.take_trust_changes()

    def apply_in_slices(self, batch: Batch) -> Iterator[None]:
        """Apply the events of a batch, a slice with each step of the iterator."""
        self._try(self._learn_groups, batch.events)
        room, span = PIECE_KEYS, self.groups.span
        for event in batch.events:
            applied = 0
            for piece in pieces_of(event, span):
                if room <= 0:
                    yield
                    room = PIECE_KEYS
                room -= EVENT_WEIGHT + hash_count(piece) * span
                applied += self._try(self._events.apply, piece)
                yield from self._store_adopted()
            self.counts.events[type(event).__name__] += applied > 0
            if not applied and hash_count(event) > PIECE_KEYS:
                self._events.skip("event_too_long", hash_count(event))
        yield from self._finish(batch)

    def _store_adopted(self) -> Iterator[None]:
        while self._writer.has_adopted:
            yield
            self._try(self._writer.go_on)

    def _finish(self, batch: Batch) -> Iterator[None]:
        self._writer.on_batch_end()
        for event in self._events.take_sparse():  # the batch's others are known by now
            self._try(self._writer.learn_from_sparse, event)
            yield
            yield from self._store_adopted()
        for reason, count in batch.skipped.items():
            self.counts.skipped[reason] += count
            if reason not in DECODE_ERRORS:  # the sequencer handles damaged frames
                self._writer.report(Downgrade(TrustState.DEGRADED, reason, recoverable=False))

    def _try(self, step: Callable[..., None], *arguments: Any) -> bool:
        """Do one step of a batch; False if it fails: one bad event must not cost the others."""
        try:
            step(*arguments)
            return True
        except Exception:  # noqa: BLE001 - counted, and shown in every answer
            self._on_internal_error()
            return False

    def _on_internal_error(self) -> None:
        """A step has failed, with the exception that is being handled."""
        self.counts.skipped["internal_error"] += 1
        error = Downgrade(TrustState.DEGRADED, "internal_error", recoverable=False)
        self._writer.report(error)
        _log.exception("event_not_applied", pod=self._worker.pod, rank=self._worker.rank)

    def _learn_groups(self, events: Sequence[Event]) -> None:
        """Learn which cache groups there are from all events, before applying any."""
        self._events.begin_batch()
        if self.groups.learn(events):
            self._set_layout()

    def _set_layout(self) -> None:
        self._familiar.clear()
        layout = self.groups.layout
        size = self._index.layout_of(self._worker).key_block_size
        if size not in (0, layout.key_block_size) and self.has_resolved:
            # The index drops keys of another length: everything has to be announced again.
            self._writer.clear_orphans()
            self._writer.report(Downgrade(TrustState.PARTIAL, "block_size_changed"))
        self._index.describe(self._worker, layout)
        self._writer.use_key_size(self.groups.key_block_size)

    # Engines come and go; each call returns the changes of the worker's trust

    def on_engine_restarted(self) -> Sequence[TrustChange]:
        """Drop what died with the former engine's process."""
        lost = [tier for tier in self._places.tiers if class_of(tier) is not TierClass.STORAGE]
        self._index.restart(self._worker, lost)
        self.groups.restart()
        self._familiar.clear()
        self._writer.clear_orphans()
        self._events.other_cache.clear()
        return self._writer.take_trust_changes()

    def drop_classes(
        self, classes: Collection[TierClass], *, forget_hashes: bool = False
    ) -> Sequence[TrustChange]:
        """Drop everything that is claimed in tiers of these classes.

        forget_hashes: forget what engine hashes mean, too: another engine may have named others so.
        """
        tiers = [tier for tier in self._places.tiers if class_of(tier) in classes]
        if forget_hashes:
            self._index.restart(self._worker, tiers)
            self._writer.clear_orphans()
        else:
            self._index.clear(self._worker, tiers)
            self._writer.clear_orphans(tiers)
        return self._writer.take_trust_changes()

    def restore(self, tiers: Iterable[str]) -> Sequence[TrustChange]:
        """Go on with what the index holds of the worker: blocks in `tiers`, and its groups."""
        self._writer.on_restored()
        for tier in tiers:
            self._places.find(tier, None)
        self.groups.load(self._index.layout_of(self._worker))
        self._set_layout()
        return self._writer.take_trust_changes()
