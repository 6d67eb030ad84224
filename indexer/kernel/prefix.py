# cython: boundscheck=False, wraparound=False, initializedcheck=False, warn.unreachable=False
# cython: cdivision=True
"""The longest-prefix walk: set numbers along a prompt -> what each worker holds and can reuse.

Compiled by Cython where a C compiler is at hand; the same source runs as plain Python elsewhere.

The walk goes once over the *segments* of a prompt: runs of blocks that have the same holders. An
end e is one that an engine can reuse up to if every kind of its groups allows it (see `ReusePlan`),
and whether it does depends on the blocks before e alone. So the walk keeps for each rule where the
run of held blocks that reaches the present segment began; within a segment the allowed ends are an
interval, and the greatest of the newest segment that has any is the answer.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import cython

if TYPE_CHECKING:
    from indexer.cache_layout import ReusePlan

_FIRST = 64
_MOST_KEPT = 1 << 20  # bytes of scratch space between walks
_RULES = cython.declare(cython.Py_ssize_t, 8)
_SLIDING = cython.declare(cython.int, 2)
_CHUNKED = cython.declare(cython.int, 4)


@cython.cclass
class PrefixWalk:
    """Whose each member of the holder sets is, and how far each worker's engine reuses blocks.

    Members and workers are small numbers that the caller gives.
    """

    def __init__(self) -> None:
        self._workers = array("i", [-1]) * _FIRST
        self._tiers = array("B", bytes(_FIRST))
        self._bits = array("I", bytes(4 * _FIRST))
        self._chunks = array("I", bytes(4 * _FIRST))
        self._plain = array("B", bytes(_FIRST))
        self._main = array("I", bytes(4 * _FIRST))
        self._main_block = array("I", [1]) * _FIRST
        self._align = array("I", [1]) * _FIRST
        self._dropped = array("I", bytes(4 * _FIRST))
        self._rule_count = array("B", bytes(_FIRST))
        self._attention = array("B", bytes(_RULES * _FIRST))
        self._mask = array("I", bytes(4 * _RULES * _FIRST))
        self._block = array("I", bytes(4 * _RULES * _FIRST))
        self._reach = array("I", bytes(4 * _RULES * _FIRST))
        # What is noted during a walk. `_segment_stamp` counts segments of all walks: an older stamp is none.
        self._segment_stamp = 0
        self._tier_count = 0
        self._tiers_used = 0  # any beyond are weighed, but nothing is there
        self._weighed = array("d")
        self._segment_ends = array("I", bytes(4 * _FIRST))
        self._active = array("I", bytes(4 * _FIRST))
        self._stamps = array("Q", bytes(8 * _FIRST))
        self._held = array("I", bytes(4 * _FIRST))
        self._runs = array("i", bytes(4 * _RULES * _FIRST))
        self._best = array("B", bytes(_FIRST))

    def place(
        self,
        holder: cython.Py_ssize_t,
        worker: cython.int,
        tier: cython.uchar = 0,
        bit: cython.uint = 0,
        chunk: cython.uint = 0,
    ) -> None:
        """Blocks of `holder` are `worker`'s (-1: nobody's) in `tier`, in the group of `bit`.

        chunk: blocks that the tier loads as a whole: such a chunk of a prompt is held if its last
        block is. 0: each on its own.
        """
        while holder >= len(self._workers):
            self._workers = _doubled(array("i", self._workers), -1)
            self._tiers = _doubled(array("B", self._tiers), 0)
            self._bits = _doubled(array("I", self._bits), 0)
            self._chunks = _doubled(array("I", self._chunks), 0)
        self._workers[holder] = worker if bit or worker < 0 else -1
        self._tiers[holder] = tier
        self._tiers_used = max(self._tiers_used, cython.cast(cython.Py_ssize_t, tier) + 1)
        self._bits[holder] = bit
        self._chunks[holder] = chunk

    def describe(self, worker: cython.Py_ssize_t, plan: ReusePlan, chunked: cython.bint) -> None:
        """How `worker` reuses blocks; chunked: whether any of its tiers loads chunks."""
        i: cython.Py_ssize_t
        at: cython.Py_ssize_t
        while worker >= len(self._main):
            self._plain = _doubled(array("B", self._plain), 0)
            self._main = _doubled(array("I", self._main), 0)
            self._main_block = _doubled(array("I", self._main_block), 1)
            self._align = _doubled(array("I", self._align), 1)
            self._dropped = _doubled(array("I", self._dropped), 0)
            self._rule_count = _doubled(array("B", self._rule_count), 0)
            self._attention = _doubled(array("B", self._attention), 0)
            self._mask = _doubled(array("I", self._mask), 0)
            self._block = _doubled(array("I", self._block), 0)
            self._reach = _doubled(array("I", self._reach), 0)
        one_group = plan.main != 0 and plan.main & (plan.main - 1) == 0
        self._plain[worker] = one_group and not plan.rules and not chunked
        self._main[worker] = plan.main
        self._main_block[worker] = plan.main_block
        self._align[worker] = plan.align
        self._dropped[worker] = plan.dropped
        self._rule_count[worker] = len(plan.rules)
        for i in range(len(plan.rules)):
            at = worker * _RULES + i
            self._attention[at] = plan.rules[i].attention
            self._mask[at] = plan.rules[i].mask
            self._block[at] = plan.rules[i].block
            self._reach[at] = plan.rules[i].reach

    def walk(
        self,
        numbers: cython.uint[::1],
        sets: list[array[int]],
        weights: array[float],
        worker_count: cython.Py_ssize_t,
        blocks: cython.Py_ssize_t,
        limit: cython.Py_ssize_t,
        chunks: tuple[int, ...] = (),
        ratio: cython.Py_ssize_t = 1,
    ) -> tuple[array[int], array[float], array[int], array[int]]:
        """What each worker holds and can reuse of a prompt.

        numbers: per leading block the number of its holder set. sets: number -> members. weights:
        tier -> what a block in it adds to the score; they do not change, but there may be more of
        them another time. blocks: of the whole prompt; limit: of all but its last token. chunks:
        the lengths of chunks there may be. ratio: how many of these blocks make one that a score
        counts, for only whole ones do.

        Returns, by worker and in blocks of these keys: leading blocks held in any tier in all main
        groups; the sum of the best tier's weight over what could be reused if the prompt went on;
        (worker * tiers + tier) leading blocks held in that very tier; and what can be reused.

        A score is a sum of one product a weight, in the order of `weights`: the same to the last
        bit however workers, members and sets are numbered.
        """
        count: cython.Py_ssize_t = len(numbers)
        pass_number: cython.Py_ssize_t
        chunk: cython.Py_ssize_t
        at: cython.Py_ssize_t
        i: cython.Py_ssize_t
        matched_out = array("I", bytes(4 * (worker_count + 1)))
        scores_out = array("d", bytes(8 * (worker_count + 1)))
        tiers_out = array("I", bytes(4 * (worker_count + 1) * len(weights)))
        open_out = array("I", bytes(4 * (worker_count + 1)))
        ends_out = array("I", bytes(4 * (worker_count + 1)))
        self._matched = matched_out
        self._by_tier = tiers_out
        self._open_ends = open_out
        self._ends = ends_out
        self._blocks, self._limit = blocks, limit
        if len(weights) != self._tier_count or weights is not self._weighed:
            self._sort_tiers(weights)
        self._split_into_segments(numbers, chunks)
        self._reserve(worker_count)
        self._segment = 0
        self._start = 0
        self._first_stamp = self._segment_stamp
        self._any_matched = True
        while self._any_matched and self._start < count:
            self._end = self._segment_ends[self._segment]
            self._row = self._segment * worker_count
            self._any_matched = False
            self._active_count = 0
            self._segment_stamp += 1
            self._mark_held(sets[numbers[self._start]], 0)
            for pass_number in range(len(chunks)):
                # A tier that loads chunks holds a segment if it holds the last block of its chunk.
                chunk = chunks[pass_number]
                at = (self._start // chunk + 1) * chunk - 1
                if at < count:
                    self._mark_held(sets[numbers[at]], chunk)
            for i in range(self._active_count):
                self._evaluate(self._active[i])
            self._start = self._end
            self._segment += 1
        self._finish(scores_out, worker_count, ratio)
        if len(self._best) > _MOST_KEPT:
            self._best = array("B", bytes(_FIRST))
        return matched_out, scores_out, tiers_out, ends_out

    def _sort_tiers(self, weights: array[float]) -> cython.void:
        """Put the tiers in order: the heaviest first, and those of the same weight together."""
        tier_count: cython.Py_ssize_t = len(weights)
        i: cython.Py_ssize_t
        tier: cython.Py_ssize_t
        same: cython.uchar[::1] = array("B", range(tier_count))
        self._weights = array("d", weights)  # of ours: theirs grows
        self._weighed = weights
        self._tier_count = tier_count
        for i in range(tier_count):
            for tier in range(i):
                if weights[tier] == weights[i]:
                    same[i] = tier
                    break
        self._same = same
        self._order = array("B", sorted(range(tier_count), key=weights.__getitem__, reverse=True))
        self._counts = array("q", bytes(8 * tier_count))
        self._tier_held = array("I", bytes(4 * tier_count * len(self._held)))

    def _reserve(self, worker_count: cython.Py_ssize_t) -> cython.void:
        """Have room for what is noted during a walk of the present number of segments."""
        if worker_count > len(self._held):
            self._active = array("I", bytes(8 * worker_count))
            self._stamps = array("Q", bytes(16 * worker_count))
            self._held = array("I", bytes(8 * worker_count))
            self._tier_held = array("I", bytes(8 * worker_count * self._tier_count))
            self._runs = array("i", bytes(8 * worker_count * _RULES))
        if self._segments * worker_count > len(self._best):
            self._best = array("B", bytes(2 * self._segments * worker_count))

    def _split_into_segments(self, numbers: cython.uint[::1], chunks: tuple) -> cython.void:
        """Find where each run of blocks with the same holders, and in the same chunks, ends."""
        count: cython.Py_ssize_t = len(numbers)
        segments: cython.Py_ssize_t = 0
        i: cython.Py_ssize_t
        has_chunks: cython.bint = len(chunks) > 0
        if count > len(self._segment_ends):
            self._segment_ends = array("I", bytes(8 * count))
        for i in range(1, count + 1):
            if (
                i == count
                or numbers[i] != numbers[i - 1]
                or (has_chunks and any(i % chunk == 0 for chunk in chunks))
            ):
                self._segment_ends[segments] = i
                segments += 1
        self._segments = segments

    def _mark_held(self, holders: cython.uint[::1], chunk: cython.uint) -> cython.void:
        """These hold the present segment; of members, those of tiers that load such chunks."""
        i: cython.Py_ssize_t
        holder: cython.Py_ssize_t
        worker: cython.Py_ssize_t
        tier: cython.Py_ssize_t
        cell: cython.Py_ssize_t
        best: cython.Py_ssize_t
        known: cython.Py_ssize_t = len(self._workers)
        for i in range(len(holders)):
            holder = holders[i]
            if holder >= known or self._chunks[holder] != chunk:
                continue
            worker = self._workers[holder]
            if worker < 0:
                continue
            if not self._plain[worker]:
                if self._stamps[worker] != self._segment_stamp:
                    self._activate(worker)
                self._held[worker] |= self._bits[holder]
                if self._tiers_used > 1:
                    cell = worker * self._tier_count + self._tiers[holder]
                    self._tier_held[cell] |= self._bits[holder]
                continue
            tier = self._tiers[holder]
            cell = worker * self._tier_count + tier
            if self._by_tier[cell] == self._start:
                self._by_tier[cell] = self._end
            tier = self._same[tier]
            best = self._row + worker
            if self._matched[worker] == self._start:
                self._matched[worker] = self._end
                self._best[best] = tier
                self._any_matched = True
            elif (
                self._matched[worker] == self._end
                and self._weights[tier] > self._weights[self._best[best]]
            ):
                self._best[best] = tier

    def _activate(self, worker: cython.Py_ssize_t) -> cython.void:
        """The first member of a worker with several groups, in this segment."""
        j: cython.Py_ssize_t
        first: cython.Py_ssize_t
        if self._stamps[worker] <= self._first_stamp:
            for j in range(worker * _RULES, worker * _RULES + self._rule_count[worker]):
                self._runs[j] = 0
        self._stamps[worker] = self._segment_stamp
        self._held[worker] = 0
        if self._tiers_used > 1:
            first = worker * self._tier_count
            for j in range(first, first + self._tiers_used):
                self._tier_held[j] = 0
        self._active[self._active_count] = worker
        self._active_count += 1

    def _evaluate(self, worker: cython.Py_ssize_t) -> cython.void:
        """What the present segment means to a worker with several groups."""
        main: cython.uint = self._main[worker]
        cell: cython.Py_ssize_t
        end: cython.Py_ssize_t
        if self._matched[worker] != self._start or main == 0 or self._held[worker] & main != main:
            return
        self._matched[worker] = self._end
        self._any_matched = True
        if self._tiers_used == 1:
            cell = worker * self._tier_count
            if self._by_tier[cell] == self._start:
                self._by_tier[cell] = self._end
            self._best[self._row + worker] = 0
        else:
            self._evaluate_tiers(worker, main)
        self._low = self._start + 1
        self._step = self._align[worker]
        if self._allows(worker):
            end = _rounded(min(self._end, self._blocks), self._step)
            if end >= self._low:
                self._open_ends[worker] = end
            end = _rounded(min(self._end, self._limit), self._step)
            if end >= self._low:
                self._ends[worker] = end

    def _evaluate_tiers(self, worker: cython.Py_ssize_t, main: cython.uint) -> cython.void:
        """How far each tier reaches, and which is the best for the present segment."""
        groups: cython.uint = 0
        j: cython.Py_ssize_t
        tier: cython.Py_ssize_t
        cell: cython.Py_ssize_t
        found: cython.bint = False
        for j in range(self._tier_count):
            tier = self._order[j]
            if tier >= self._tiers_used:
                continue
            cell = worker * self._tier_count + tier
            if self._by_tier[cell] == self._start and self._tier_held[cell] & main == main:
                self._by_tier[cell] = self._end
            groups |= self._tier_held[cell]
            if not found and groups & main == main:
                self._best[self._row + worker] = self._same[tier]
                found = True

    def _allows(self, worker: cython.Py_ssize_t) -> cython.bint:
        """Whether any end in the present segment is allowed: from `_low` on, every `_step`-th."""
        rule: cython.Py_ssize_t
        begun: cython.Py_ssize_t
        first: cython.Py_ssize_t = worker * _RULES
        for rule in range(first, first + self._rule_count[worker]):
            if self._held[worker] & self._mask[rule] != self._mask[rule]:
                self._runs[rule] = -1
                if self._attention[rule] != _CHUNKED:
                    return self._break(rule + 1, first + self._rule_count[worker], worker)
                self._step = _lcm(self._step, self._reach[rule])  # it may end where a chunk begins
                continue
            if self._runs[rule] < 0:
                self._runs[rule] = self._start
            begun = self._runs[rule]
            if self._attention[rule] == _SLIDING and begun > 0:
                begun = _rounded(begun + self._block[rule] - 1, self._block[rule])
                self._low = max(self._low, begun + self._reach[rule])
            elif self._attention[rule] == _CHUNKED:
                begun = _rounded(begun + self._reach[rule] - 1, self._reach[rule])
                self._low = max(self._low, begun)
        return True

    def _break(
        self, rule: cython.Py_ssize_t, last: cython.Py_ssize_t, worker: cython.Py_ssize_t
    ) -> cython.bint:
        """No end is allowed; see only where the runs of the remaining rules begin and break."""
        while rule < last:
            if self._held[worker] & self._mask[rule] != self._mask[rule]:
                self._runs[rule] = -1
            elif self._runs[rule] < 0:
                self._runs[rule] = self._start
            rule += 1
        return False

    def _finish(
        self,
        scores: cython.double[::1],
        worker_count: cython.Py_ssize_t,
        ratio: cython.Py_ssize_t,
    ) -> cython.void:
        """Engines reuse whole blocks of their own, and less than that where a draft model is."""
        worker: cython.Py_ssize_t
        cell: cython.Py_ssize_t
        align: cython.Py_ssize_t
        dropped: cython.Py_ssize_t
        for worker in range(worker_count):
            if self._matched[worker] == 0:
                continue
            align = self._align[worker]
            dropped = self._dropped[worker]
            if self._rule_count[worker] == 0:
                self._open_ends[worker] = _rounded(min(self._matched[worker], self._blocks), align)
                self._ends[worker] = _rounded(min(self._matched[worker], self._limit), align)
            if dropped:
                self._open_ends[worker] = _without_last(self._open_ends[worker], dropped, align)
                self._ends[worker] = _without_last(self._ends[worker], dropped, align)
            align = self._main_block[worker]
            if align > 1:
                self._matched[worker] = _rounded(self._matched[worker], align)
                for cell in range(worker * self._tier_count, (worker + 1) * self._tier_count):
                    self._by_tier[cell] = _rounded(self._by_tier[cell], align)
            if self._open_ends[worker]:
                scores[worker] = self._score(worker, worker_count, ratio)

    def _score(
        self,
        worker: cython.Py_ssize_t,
        worker_count: cython.Py_ssize_t,
        ratio: cython.Py_ssize_t,
    ) -> cython.double:
        """The weighted sum of a worker's blocks up to its end, in whole multiples of `ratio`."""
        last: cython.Py_ssize_t = _rounded(self._open_ends[worker], ratio)
        start: cython.Py_ssize_t = 0
        segment: cython.Py_ssize_t = 0
        tier: cython.Py_ssize_t
        end: cython.Py_ssize_t
        score: cython.double = 0.0
        for tier in range(self._tiers_used):
            self._counts[tier] = 0
        while start < last:
            end = min(cython.cast(cython.Py_ssize_t, self._segment_ends[segment]), last)
            self._counts[self._best[segment * worker_count + worker]] += end - start
            start = end
            segment += 1
        for tier in range(self._tiers_used):
            if self._counts[tier]:
                score += self._counts[tier] / ratio * self._weights[tier]
        return score


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _rounded(blocks: cython.Py_ssize_t, step: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """The greatest multiple of `step` that is not greater."""
    return blocks if step == 1 else blocks - blocks % step


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _without_last(
    blocks: cython.Py_ssize_t, dropped: cython.Py_ssize_t, step: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    """So many blocks less, and then whole steps."""
    return _rounded(blocks - dropped, step) if blocks > dropped else 0


@cython.cfunc
@cython.exceptval(check=False)
def _lcm(a: cython.Py_ssize_t, b: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """The least common multiple."""
    x: cython.Py_ssize_t = a
    y: cython.Py_ssize_t = b
    z: cython.Py_ssize_t
    while y:
        z = x % y
        x = y
        y = z
    return a // x * b


def _doubled(values: array[int], value: int) -> array[int]:
    return values + array(values.typecode, [value]) * len(values)
