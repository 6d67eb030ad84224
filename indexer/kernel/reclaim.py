# cython: warn.unreachable=False, boundscheck=False, wraparound=False, initializedcheck=False
"""How the table gets slots back: the order of eviction, and the sweep of retired holders."""

from __future__ import annotations

import cython

from indexer.kernel.holder_sets import HolderSets
from indexer.kernel.holders import Holders
from indexer.kernel.segment import Segment, segment_of

_EPOCHS_PER_TABLE = cython.declare(cython.Py_ssize_t, 32)
_LEAST_STORES = cython.declare(cython.Py_ssize_t, 4096)  # so that a small table ages slowly too
_BEYOND_SHARE = cython.declare(cython.int, 256)
_NOT_HELD = cython.declare(cython.int, 512)


@cython.cclass
class EvictionRanks:
    """The clock by which slots age, and their order of eviction: an approximate LRU.

    Time is counted in epochs of stored blocks: in 32 epochs as many blocks are stored as there
    are mappings. A slot keeps the low 8 bits of the epoch in which it was last used. After 256
    epochs without use it looks young again, but a full table has evicted it long before.

    Attributes:
        epoch: the present epoch, modulo 256.
        pod_share: the part of all slots from which on those that are of use to one pod alone are
            evicted before the slots of others; 1 for no such part.
    """

    def __init__(self, sets: HolderSets, holders: Holders, blocks: list[Segment]) -> None:
        self._sets = sets
        self._holders = holders
        self._blocks = blocks
        self._stores = 0
        self.epoch = 0
        self.pod_share = 1.0
        self._pods = {}  # holder -> its pod
        self._held = {}  # set number -> whether it has a holder; of one segment's evictions
        self._beyond_share = set()  # set numbers; of one segment's evictions

    def set_pod(self, holder: int, pod: str) -> None:
        """Count the slots of `holder` for the share of `pod`."""
        self._pods[holder] = pod

    def advance(self, stored: cython.Py_ssize_t, mappings: cython.Py_ssize_t) -> cython.bint:
        """Count `stored` blocks in a table of `mappings`; True if a new epoch begins."""
        self._stores += stored
        if self._stores * _EPOCHS_PER_TABLE <= mappings + _LEAST_STORES:
            return False
        self._stores = 0
        self.epoch = (self.epoch + 1) & 0xFF
        return True

    def rank(self, segment: Segment, offset: cython.Py_ssize_t) -> cython.int:
        """Return how soon to evict a used slot: the highest ranks go first.

        The rank is the age of the slot in epochs. Slots of a pod that has more than its share go
        before those of others, by their age. There are two exceptions for mappings. One that no
        worker holds a block by is only of use for a later bare announcement: it goes before
        everything else. One whose block is in use stays: requests look up blocks and touch those
        only, and a block without its mapping could not be removed any more.
        """
        age: cython.int = (self.epoch - segment.age_at(offset)) & 0xFF
        if segment.has_keys:
            if not self._is_held(segment.holder_set_at(offset)):
                return _NOT_HELD
        if self._beyond_share and segment.holder_set_at(offset) in self._beyond_share:
            return _BEYOND_SHARE + age
        if segment.has_keys:
            if age > 0 and self._is_recently_used(
                segment.words[offset + 2], segment.holder_set_at(offset)
            ):
                return 0
        return age

    def lowest_to_evict(self, segment: Segment) -> int:
        """Return the rank from which on slots are evicted, for at least a sixteenth to go.

        A histogram of ranks in place of a sort. All slots of the returned rank go, so in a
        segment whose slots are all of one epoch everything goes.
        """
        counts = [0] * (_NOT_HELD + 1)
        self._held.clear()
        if self.pod_share < 1.0:
            self._beyond_share = self._sets_beyond_share(segment)
        offset: cython.Py_ssize_t
        for offset in range(0, segment.size, segment.width):
            if segment.holder_set_at(offset) != 0:
                counts[self.rank(segment, offset)] += 1
        wanted = max(1, segment.used // 16)
        rank = _NOT_HELD
        while rank > 0:
            wanted -= counts[rank]
            if wanted <= 0:
                break
            rank -= 1
        return rank

    def _sets_beyond_share(self, segment: Segment) -> set:
        """Return the sets with one pod's holders only, of pods with more than their share.

        Names are spread evenly, so what a pod has of one segment is what it has of the table.
        """
        slots: dict = {}  # set number -> slots
        pods: dict = {}  # pod -> slots that are of use to it alone
        offset: cython.Py_ssize_t
        for offset in range(0, segment.size, segment.width):
            number = segment.holder_set_at(offset)
            if number != 0:
                slots[number] = slots.get(number, 0) + 1
        only_pods = {number: self._only_pod(number) for number in slots}
        for number, pod in only_pods.items():
            pods[pod] = pods.get(pod, 0) + slots[number]
        most = self.pod_share * segment.used
        return {n for n, pod in only_pods.items() if pod is not None and pods[pod] > most}

    def _only_pod(self, number: int) -> str | None:
        """Return the pod of all holders of a set; None if there is not exactly one."""
        retired = self._sets.retired
        pods = {
            self._pods.get(holder)
            for holder in self._sets.holders[number]
            if not self._holders.announcer[holder] and holder not in retired
        }
        return pods.pop() if len(pods) == 1 else None

    def _is_held(self, number: cython.uint) -> cython.bint:
        """Return whether a set has a holder that is neither retired nor an announcer."""
        held = self._held.get(number)
        if held is None:
            retired = self._sets.retired
            held = self._held[number] = any(
                not self._holders.announcer[holder] and holder not in retired
                for holder in self._sets.holders[number]
            )
        return held

    def _is_recently_used(self, key: cython.ulonglong, number: cython.uint) -> cython.bint:
        """Return whether the block of a mapping was stored or looked up in the last 8 epochs."""
        first: cython.uint = self._sets.holders[number][0]  # of one scope, with rare exceptions
        name: cython.ulonglong = key ^ self._holders.scopes[first]
        segment: Segment = self._blocks[segment_of(name)]
        offset: cython.Py_ssize_t = segment.find(name)
        age: cython.int
        if offset < 0:
            return False
        age = (self.epoch - segment.age_at(offset)) & 0xFF
        return age < _EPOCHS_PER_TABLE // 4


@cython.cclass
class Sweep:
    """A pass over both maps of a block table, again and again while there are retired holders.

    A holder retires in constant time: its number stays in sets, and nothing counts it any more.
    The number can stand for another holder only when no set contains it, so the sweep rewrites
    every set that does. Its cost does not depend on how many holders have retired.
    """

    def __init__(
        self,
        blocks: list[Segment],
        mappings: list[Segment],
        sets: HolderSets,
        holders: Holders,
    ) -> None:
        self._blocks = blocks
        self._mappings = mappings
        self._sets = sets
        self._holders = holders
        self._leaving = set()  # holders that had retired when the present pass began
        self._next = 0  # the segment with which the next call begins

    def run(self, segments: int) -> tuple[int, int]:
        """Sweep up to `segments` more segments of both maps; return how many slots each freed.

        Holders that retire during a pass are taken out of the segments still to come, but stay in
        those behind. So the pass frees only the numbers of holders that had retired before it.
        """
        freed_blocks = freed_mappings = 0
        if not self._sets.retired:
            return 0, 0
        if self._next == 0:
            self._leaving = set(self._sets.retired)
        for _ in range(min(segments, len(self._blocks) - self._next)):
            freed_blocks += self._sweep_segment(self._blocks[self._next])
            freed_mappings += self._sweep_segment(self._mappings[self._next])
            self._next += 1
        if self._next == len(self._blocks):
            self._next = 0
            self._sets.forget_retired(self._leaving)
            self._holders.free(self._leaving)
        return freed_blocks, freed_mappings

    def _sweep_segment(self, segment: Segment) -> int:
        """Rewrite the sets of one segment without retired holders; return how many slots it freed.

        Most slots share a few sets, so each set is worked out once. Nothing is inserted and no
        set is dropped meanwhile: the numbers in `cleaned` stay valid without references.
        """
        offset: cython.Py_ssize_t = 0
        before: cython.Py_ssize_t = segment.used
        cleaned: dict = {}
        number: cython.uint
        while offset < segment.size:
            number = segment.holder_set_at(offset)
            if number == 0:
                offset += segment.width
                continue
            clean = cleaned.get(number)
            if clean is None:
                clean = cleaned[number] = self._sets.without_retired(number)
            segment.assign(offset, clean, self._sets)
            if clean != 0:  # otherwise another slot may have moved here: look again
                offset += segment.width
        return before - segment.used
