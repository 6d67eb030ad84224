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
from typing import TYPE_CHECKING, NamedTuple

import cython

if TYPE_CHECKING:
    from indexer.groups import ReusePlan

_FIRST = 64
_RULES = cython.declare(cython.Py_ssize_t, 8)
_SLIDING = cython.declare(cython.int, 2)
_CHUNKED = cython.declare(cython.int, 4)


class Walked(NamedTuple):
    """The outcome by worker, in blocks of the keys that were walked.

    matched: leading blocks held in any tier in all main groups. scores: sum of the best tier's
    weight over the blocks up to `open_ends`. tiers: (worker * tiers + tier) leading blocks held in
    that very tier. open_ends: what could be reused if the prompt went on. ends: what can be.
    """

    matched: array[int]
    scores: array[float]
    tiers: array[int]
    open_ends: array[int]
    ends: array[int]


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

    def place(
        self,
        member: cython.Py_ssize_t,
        worker: cython.int,
        tier: cython.uchar = 0,
        bit: cython.uint = 0,
        chunk: cython.uint = 0,
    ) -> None:
        """Blocks of `member` are `worker`'s (-1: nobody's) in `tier`, in the group of `bit`.

        chunk: blocks that the tier loads as a whole: such a chunk of a prompt is held if its last
        block is. 0: each on its own.
        """
        while member >= len(self._workers):
            self._workers = _doubled(array("i", self._workers), -1)
            self._tiers = _doubled(array("B", self._tiers), 0)
            self._bits = _doubled(array("I", self._bits), 0)
            self._chunks = _doubled(array("I", self._chunks), 0)
        self._workers[member] = worker if bit or worker < 0 else -1
        self._tiers[member] = tier
        self._bits[member] = bit
        self._chunks[member] = chunk

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
        weights: cython.double[::1],
        worker_count: cython.Py_ssize_t,
        blocks: cython.Py_ssize_t,
        limit: cython.Py_ssize_t,
        chunks: tuple[int, ...] = (),
        ratio: cython.Py_ssize_t = 1,
    ) -> Walked:
        """What each worker holds and can reuse of a prompt.

        numbers: per leading block the number of its holder set. sets: number -> members. weights:
        tier -> what a block in it adds to the score. blocks: of the whole prompt; limit: of all but
        its last token. chunks: the lengths of chunks there may be. ratio: how many of these blocks
        make one that a score counts, for only whole ones do.

        A score is a sum of one product a weight, in the order of `weights`: the same to the last
        bit however workers, members and sets are numbered.
        """
        tier_count: cython.Py_ssize_t = len(weights)
        count: cython.Py_ssize_t = len(numbers)
        ends_of = self._segments(numbers, chunks)
        segment_ends: cython.uint[::1] = ends_of
        matched_out = array("I", bytes(4 * (worker_count + 1)))
        scores_out = array("d", bytes(8 * (worker_count + 1)))
        tiers_out = array("I", bytes(4 * (worker_count + 1) * tier_count))
        open_out = array("I", bytes(4 * (worker_count + 1)))
        ends_out = array("I", bytes(4 * (worker_count + 1)))
        best_out = array("B", bytes(len(ends_of) * worker_count + 1))
        touched_out = array("I", bytes(4 * (worker_count + 1)))
        stamp_out = array("I", bytes(4 * (worker_count + 1)))
        held_out = array("I", bytes(4 * (worker_count + 1)))
        tier_held_out = array("I", bytes(4 * (worker_count + 1) * tier_count))
        runs_out = array("i", bytes(4 * (worker_count + 1) * _RULES))
        same_out = array("B", range(tier_count))
        order_out = array("B", sorted(range(tier_count), key=weights.__getitem__, reverse=True))
        matched: cython.uint[::1] = matched_out
        by_tier: cython.uint[::1] = tiers_out
        open_ends: cython.uint[::1] = open_out
        ends: cython.uint[::1] = ends_out
        best: cython.uchar[::1] = best_out  # by segment and worker: 1 + the best tier there
        touched: cython.uint[::1] = touched_out  # workers of the segment that need more than a look
        stamp: cython.uint[::1] = stamp_out
        held: cython.uint[::1] = held_out  # groups that hold the segment, in any tier
        tier_held: cython.uint[::1] = tier_held_out
        runs: cython.int[::1] = runs_out  # by worker and rule: where its run began, -1 if broken
        same: cython.uchar[::1] = same_out  # tier -> the first tier of the same weight
        order: cython.uchar[::1] = order_out  # the heaviest first
        current: cython.uint[::1]
        segment: cython.Py_ssize_t = 0
        start: cython.Py_ssize_t = 0
        end: cython.Py_ssize_t
        at: cython.Py_ssize_t
        row: cython.Py_ssize_t
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        member: cython.Py_ssize_t
        worker: cython.Py_ssize_t
        cell: cython.Py_ssize_t
        tier: cython.Py_ssize_t
        chunk: cython.Py_ssize_t
        pass_number: cython.Py_ssize_t
        touched_count: cython.Py_ssize_t
        main: cython.uint
        groups: cython.uint
        low: cython.Py_ssize_t
        step: cython.Py_ssize_t
        begun: cython.Py_ssize_t
        rule: cython.Py_ssize_t
        allowed: cython.bint
        alive: cython.bint = True
        for i in range(tier_count):
            for tier in range(i):
                if weights[tier] == weights[i]:
                    same[i] = tier
                    break
        while alive and start < count:
            end = segment_ends[segment]
            row = segment * worker_count
            alive = False
            touched_count = 0
            for pass_number in range(1 + len(chunks)):
                # A tier that loads chunks holds a segment if it holds the last block of its chunk.
                chunk = 0 if pass_number == 0 else chunks[pass_number - 1]
                at = start if chunk == 0 else (start // chunk + 1) * chunk - 1
                if at >= count:
                    continue
                current = sets[numbers[at]]
                for i in range(len(current)):
                    member = current[i]
                    if member >= len(self._workers) or self._chunks[member] != chunk:
                        continue
                    worker = self._workers[member]
                    if worker < 0:
                        continue
                    tier = self._tiers[member]
                    cell = worker * tier_count + tier
                    if not self._plain[worker]:
                        if stamp[worker] != segment + 1:
                            stamp[worker] = segment + 1
                            held[worker] = 0
                            for j in range(tier_count):
                                tier_held[worker * tier_count + j] = 0
                            touched[touched_count] = worker
                            touched_count += 1
                        held[worker] |= self._bits[member]
                        tier_held[cell] |= self._bits[member]
                        continue
                    if by_tier[cell] == start:
                        by_tier[cell] = end
                    tier = same[tier]
                    if matched[worker] == start:
                        matched[worker] = end
                        best[row + worker] = tier + 1
                        alive = True
                    elif matched[worker] == end and weights[tier] > weights[best[row + worker] - 1]:
                        best[row + worker] = tier + 1
            for i in range(touched_count):
                worker = touched[i]
                main = self._main[worker]
                if matched[worker] != start or main == 0 or held[worker] & main != main:
                    continue
                matched[worker] = end
                alive = True
                groups = 0
                for j in range(tier_count):
                    tier = order[j]
                    cell = worker * tier_count + tier
                    if by_tier[cell] == start and tier_held[cell] & main == main:
                        by_tier[cell] = end
                    groups |= tier_held[cell]
                    if best[row + worker] == 0 and groups & main == main:
                        best[row + worker] = same[tier] + 1
                allowed = True
                low = start + 1
                step = self._align[worker]
                for j in range(self._rule_count[worker]):
                    rule = worker * _RULES + j
                    if held[worker] & self._mask[rule] == self._mask[rule]:
                        if runs[rule] < 0:
                            runs[rule] = start
                        begun = runs[rule]
                        if self._attention[rule] == _SLIDING and begun > 0:
                            begun = _rounded(begun + self._block[rule] - 1, self._block[rule])
                            begun += self._reach[rule]
                        elif self._attention[rule] == _CHUNKED:
                            begun = _rounded(begun + self._reach[rule] - 1, self._reach[rule])
                        else:
                            begun = 0
                        low = max(low, begun)
                    else:
                        runs[rule] = -1
                        if self._attention[rule] == _CHUNKED:  # it may end where a chunk begins
                            step = _lcm(step, self._reach[rule])
                        else:
                            allowed = False
                if allowed:
                    at = _rounded(min(end, blocks), step)
                    if at >= low:
                        open_ends[worker] = at
                    at = _rounded(min(end, limit), step)
                    if at >= low:
                        ends[worker] = at
            start = end
            segment += 1
        self._conclude(matched, open_ends, ends, by_tier, tier_count, worker_count, blocks, limit)
        _score(scores_out, open_ends, best, segment_ends, weights, worker_count, ratio)
        return Walked(matched_out, scores_out, tiers_out, open_out, ends_out)

    def _segments(self, numbers: cython.uint[::1], chunks: tuple[int, ...]) -> array[int]:
        """Where each run of blocks with the same holders, and in the same chunks, ends."""
        count: cython.Py_ssize_t = len(numbers)
        found = array("I", bytes(4 * (count + 1)))
        ends: cython.uint[::1] = found
        segments: cython.Py_ssize_t = 0
        i: cython.Py_ssize_t
        for i in range(1, count + 1):
            if i == count or numbers[i] != numbers[i - 1]:
                ends[segments] = i
                segments += 1
            elif chunks and any(i % chunk == 0 for chunk in chunks):
                ends[segments] = i
                segments += 1
        return found[:segments]

    def _conclude(
        self,
        matched: cython.uint[::1],
        open_ends: cython.uint[::1],
        ends: cython.uint[::1],
        by_tier: cython.uint[::1],
        tier_count: cython.Py_ssize_t,
        worker_count: cython.Py_ssize_t,
        blocks: cython.Py_ssize_t,
        limit: cython.Py_ssize_t,
    ) -> None:
        """Engines reuse whole blocks of their own, and less than that where a draft model is."""
        worker: cython.Py_ssize_t
        cell: cython.Py_ssize_t
        align: cython.Py_ssize_t
        dropped: cython.Py_ssize_t
        for worker in range(worker_count):
            if matched[worker] == 0:
                continue
            align = self._align[worker]
            dropped = self._dropped[worker]
            if self._rule_count[worker] == 0:
                open_ends[worker] = _rounded(min(matched[worker], blocks), align)
                ends[worker] = _rounded(min(matched[worker], limit), align)
            if dropped:
                open_ends[worker] = _rounded(max(open_ends[worker] - dropped, 0), align)
                ends[worker] = _rounded(max(ends[worker] - dropped, 0), align)
            align = self._main_block[worker]
            matched[worker] = _rounded(matched[worker], align)
            for cell in range(worker * tier_count, (worker + 1) * tier_count):
                by_tier[cell] = _rounded(by_tier[cell], align)


def _score(
    scores: cython.double[::1],
    ends: cython.uint[::1],
    best: cython.uchar[::1],
    segment_ends: cython.uint[::1],
    weights: cython.double[::1],
    worker_count: cython.Py_ssize_t,
    ratio: cython.Py_ssize_t,
) -> None:
    """The weighted sum of each worker's blocks up to its end, in whole multiples of `ratio`."""
    tier_count: cython.Py_ssize_t = len(weights)
    counts: cython.longlong[::1] = array("q", bytes(8 * tier_count))
    worker: cython.Py_ssize_t
    segment: cython.Py_ssize_t
    tier: cython.Py_ssize_t
    start: cython.Py_ssize_t
    last: cython.Py_ssize_t
    end: cython.Py_ssize_t
    for worker in range(worker_count):
        last = _rounded(ends[worker], ratio)
        if last == 0:
            continue
        for tier in range(tier_count):
            counts[tier] = 0
        start = 0
        segment = 0
        while start < last:
            end = min(segment_ends[segment], last)
            counts[best[segment * worker_count + worker] - 1] += end - start
            start = end
            segment += 1
        for tier in range(tier_count):
            scores[worker] += counts[tier] / ratio * weights[tier]


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _rounded(blocks: cython.Py_ssize_t, step: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """The greatest multiple of `step` that is not greater."""
    return blocks - blocks % step


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
