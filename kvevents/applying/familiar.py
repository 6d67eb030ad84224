"""Events that differ from earlier ones of their worker in their blocks alone.

Nearly all events of an engine do. What such an event does to the index was decided before, and
whatever it tells of the worker's cache groups is known.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from kvevents.wire import BlockStored

if TYPE_CHECKING:
    from indexer import Place
    from kvevents.applying.cache_groups import CacheGroups
    from kvevents.applying.index_writer import IndexWriter
    from kvevents.wire import Event

_MOST_FORMS = 64
# All that decides where blocks with tokens are stored, and that `CacheGroups` learns from.
_form_of = attrgetter(
    "medium",
    "group_idx",
    "block_size",
    "kv_cache_spec_kind",
    "kv_cache_spec_sliding_window",
    "looks_ahead",
    "lora_id",
    "lora_name",
    "carries_extras",
)


class Decision(NamedTuple):
    """What to do with events of one form."""

    place: Place
    """Where their blocks are stored."""
    needs_parent: bool
    """Whether they must continue a known block, or begin a sequence."""


class FamiliarForms:
    """The forms of a worker's events that store dense blocks on a GPU, and what was decided.

    A form is all of an event but its blocks: hashes, parent, tokens and extra keys. Whoever changes
    what a decision depends on calls `clear`.

    Args:
        writer: writes the blocks to the index.
        groups: the worker's cache groups.
    """

    def __init__(self, writer: IndexWriter, groups: CacheGroups) -> None:
        self._writer = writer
        self._groups = groups
        self._decisions: dict[tuple[object, ...], Decision] = {}

    def clear(self) -> None:
        """Forget all decisions."""
        self._decisions.clear()

    def add(self, event: BlockStored, place: Place, *, needs_parent: bool) -> None:
        """Remember what was decided about an event; of a great many forms only the newest.

        Another event of its batch may contradict it about their group: then nothing is remembered.
        """
        if not self._groups.knows(event):
            return
        if len(self._decisions) >= _MOST_FORMS:
            self._decisions.clear()
        self._decisions[_form_of(event)] = Decision(place, needs_parent)

    def find(self, event: Event) -> Decision | None:
        """What was decided about events of this one's form; None if it is to be looked at again."""
        if not isinstance(event, BlockStored):
            return None
        decision = self._decisions.get(_form_of(event))
        if decision is None or not event.block_hashes:
            return None
        is_dense = len(event.block_hashes) * event.block_size == len(event.token_ids)
        return decision if is_dense else None

    def store(self, event: BlockStored, decision: Decision) -> None:
        """Store the blocks of an event as those of an earlier one of its form."""
        writer, place = self._writer, decision.place
        parent = writer.parent_key(event)
        if parent is None and decision.needs_parent:
            writer.store_known(event, place)
            return
        writer.count_gpu_stores()
        writer.store_after(parent, event, place)
