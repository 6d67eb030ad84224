# cython: boundscheck=False, wraparound=False, initializedcheck=False, warn.unreachable=False
# cython: cdivision=True
"""The longest-prefix walk: holder sets along a prompt -> what each worker holds and can reuse.

The walk goes once over the *stretches* of a prompt: blocks in a row that have the same holders.
A worker stays in the walk as long as it holds all blocks from the first one on, so for most
workers a stretch costs a few array reads, and the walk ends with the last worker.

Workers with one main group are *plain*: `_mark_held` does all their work. Those with several
groups, or with tiers that load chunks, first collect which groups hold the stretch, in any tier
and in each; then `_evaluate` looks at the outcome, and asks the worker's rules which ends within
the stretch its engine can reuse up to.
"""

from __future__ import annotations

from array import array

import cython

from indexer.kernel.tier_scores import TierScores
from indexer.kernel.worker_plans import WorkerPlans

_INITIAL_ROOM = 64


@cython.cclass
class PrefixWalk:
    """A walk over the workers and holders of `plans`, and its scratch space."""

    def __init__(self, plans: WorkerPlans) -> None:
        self._plans = plans
        self._scores = TierScores()
        self._stretch_ends = array("I", bytes(4 * _INITIAL_ROOM))
        # Workers that are not plain and hold some of the present stretch, and what they hold: bits
        # of groups, in any tier and by worker * tiers + tier. All of it is valid only if the
        # worker's stamp is that of the present stretch. Stamps count the stretches of all walks,
        # so nothing has to be cleared between stretches or walks.
        self._active = array("I", bytes(4 * _INITIAL_ROOM))
        self._held = array("I", bytes(4 * _INITIAL_ROOM))
        self._stamps = array("Q", bytes(8 * _INITIAL_ROOM))
        self._stamp = 0

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
        """Return what each worker holds and can reuse of a prompt.

        Args:
            numbers: the holder sets of the leading blocks.
            sets: set number -> holders.
            weights: tier -> what a block in it adds to a score. They do not change, but the same
                array may be longer another time.
            worker_count: one more than the highest worker.
            blocks: blocks of the whole prompt.
            limit: blocks of all but its last token, which an engine computes in any case.
            chunks: the lengths of the chunks that tiers load, in blocks.
            ratio: blocks that make one block of an answer; scores count whole ones only.

        Returns:
            Four arrays, by worker and in blocks of these keys: the leading blocks held in all
            main groups, in any tier ('I'); the score: the sum of the best tier's weight over the
            blocks that could be reused if the prompt went on ('d'); by worker * tiers + tier, the
            leading blocks held in that very tier ('I'); and the blocks that can be reused ('I').
        """
        matched = array("I", bytes(4 * (worker_count + 1)))
        scores = array("d", bytes(8 * (worker_count + 1)))
        by_tier = array("I", bytes(4 * (worker_count + 1) * len(weights)))
        ends = array("I", bytes(4 * (worker_count + 1)))
        self._matched = matched
        self._by_tier = by_tier
        self._open_ends = array("I", bytes(4 * (worker_count + 1)))
        self._ends = ends
        self._blocks, self._limit = blocks, limit
        if self._scores.use(weights):
            self._tier_held = array("I", bytes(4 * len(weights) * len(self._held)))
        self._split_into_stretches(numbers, chunks)
        self._reserve(worker_count)
        self._visit_stretches(numbers, sets, chunks, worker_count)
        self._finish(scores, worker_count, ratio)
        self._scores.release()
        return matched, scores, by_tier, ends

    def _split_into_stretches(self, numbers: cython.uint[::1], chunks: tuple) -> cython.void:
        """Find where each row of blocks with the same holders, and in the same chunks, ends."""
        count: cython.Py_ssize_t = len(numbers)
        stretches: cython.Py_ssize_t = 0
        i: cython.Py_ssize_t
        has_chunks: cython.bint = len(chunks) > 0
        if count > len(self._stretch_ends):
            self._stretch_ends = array("I", bytes(8 * count))
        for i in range(1, count + 1):
            if (
                i == count
                or numbers[i] != numbers[i - 1]
                or (has_chunks and any(i % chunk == 0 for chunk in chunks))
            ):
                self._stretch_ends[stretches] = i
                stretches += 1
        self._stretches = stretches

    def _reserve(self, worker_count: cython.Py_ssize_t) -> cython.void:
        """Make room for so many workers in as many stretches as the prompt has."""
        if worker_count > len(self._held):
            self._active = array("I", bytes(8 * worker_count))
            self._stamps = array("Q", bytes(16 * worker_count))
            self._held = array("I", bytes(8 * worker_count))
            self._tier_held = array("I", bytes(8 * worker_count * self._scores.tier_count))
        self._scores.reserve(self._stretches * worker_count)

    def _visit_stretches(
        self,
        numbers: cython.uint[::1],
        sets: list,
        chunks: tuple,
        worker_count: cython.Py_ssize_t,
    ) -> cython.void:
        """Go from stretch to stretch until no worker is left that holds all blocks so far."""
        count: cython.Py_ssize_t = len(numbers)
        stretch: cython.Py_ssize_t = 0
        chunk: cython.Py_ssize_t
        last: cython.Py_ssize_t
        i: cython.Py_ssize_t
        self._start = 0
        self._first_stamp = self._stamp
        self._any_matched = True
        while self._any_matched and self._start < count:
            self._end = self._stretch_ends[stretch]
            self._row = stretch * worker_count
            self._any_matched = False
            self._active_count = 0
            self._stamp += 1
            self._mark_held(sets[numbers[self._start]], 0)
            for i in range(len(chunks)):
                # Stretches are split where chunks begin, so one chunk is around all of this.
                chunk = chunks[i]
                last = (self._start // chunk + 1) * chunk - 1
                if last < count:
                    self._mark_held(sets[numbers[last]], chunk)
            for i in range(self._active_count):
                self._evaluate(self._active[i])
            self._start = self._end
            stretch += 1

    def _mark_held(self, holders: cython.uint[::1], chunk: cython.uint) -> cython.void:
        """Mark the stretch as held by those of `holders` whose tiers load chunks of `chunk`."""
        plans: WorkerPlans = self._plans
        scores: TierScores = self._scores
        i: cython.Py_ssize_t
        holder: cython.Py_ssize_t
        worker: cython.Py_ssize_t
        tier: cython.Py_ssize_t
        cell: cython.Py_ssize_t
        placed: cython.Py_ssize_t = len(plans.workers)
        for i in range(len(holders)):
            holder = holders[i]
            if holder >= placed or plans.chunks[holder] != chunk:
                continue
            worker = plans.workers[holder]
            if worker < 0:  # an announcer, a retired holder, or a group that does not count
                continue
            if not plans.plain[worker]:
                if self._stamps[worker] != self._stamp:
                    self._activate(worker)
                self._held[worker] |= plans.bits[holder]
                if plans.tiers_used > 1:
                    cell = worker * scores.tier_count + plans.tiers[holder]
                    self._tier_held[cell] |= plans.bits[holder]
                continue
            tier = plans.tiers[holder]
            cell = worker * scores.tier_count + tier
            if self._by_tier[cell] == self._start:
                self._by_tier[cell] = self._end
            tier = scores.same[tier]
            cell = self._row + worker
            if self._matched[worker] == self._start:
                self._matched[worker] = self._end
                scores.best[cell] = tier
                self._any_matched = True
            elif (  # the worker holds the stretch in another tier, too
                self._matched[worker] == self._end
                and scores.weights[tier] > scores.weights[scores.best[cell]]
            ):
                scores.best[cell] = tier

    def _activate(self, worker: cython.Py_ssize_t) -> cython.void:
        """Begin to collect what a worker holds of the present stretch."""
        j: cython.Py_ssize_t
        first: cython.Py_ssize_t
        if self._stamps[worker] <= self._first_stamp:
            # Its first stretch in this walk. If that is not the first of the prompt the worker
            # matches nothing, and its rules are not looked at.
            self._plans.begin_runs(worker)
        self._stamps[worker] = self._stamp
        self._held[worker] = 0
        if self._plans.tiers_used > 1:
            first = worker * self._scores.tier_count
            for j in range(first, first + self._plans.tiers_used):
                self._tier_held[j] = 0
        self._active[self._active_count] = worker
        self._active_count += 1

    def _evaluate(self, worker: cython.Py_ssize_t) -> cython.void:
        """Draw the conclusions from what a worker that is not plain holds of the stretch."""
        main: cython.uint = self._plans.main[worker]
        cell: cython.Py_ssize_t
        end: cython.Py_ssize_t
        if self._matched[worker] != self._start or main == 0 or self._held[worker] & main != main:
            return
        self._matched[worker] = self._end
        self._any_matched = True
        if self._plans.tiers_used == 1:
            cell = worker * self._scores.tier_count
            if self._by_tier[cell] == self._start:
                self._by_tier[cell] = self._end
            self._scores.best[self._row + worker] = 0
        else:
            self._evaluate_tiers(worker, main)
        # The greatest end counts: an earlier stretch's stays if this one allows none.
        if self._plans.allows(worker, self._held[worker], self._start):
            end = _rounded(min(self._end, self._blocks), self._plans.step)
            if end >= self._plans.low:
                self._open_ends[worker] = end
            end = _rounded(min(self._end, self._limit), self._plans.step)
            if end >= self._plans.low:
                self._ends[worker] = end

    def _evaluate_tiers(self, worker: cython.Py_ssize_t, main: cython.uint) -> cython.void:
        """Find how far each tier reaches, and which tier's weight the stretch has.

        A group may be in one tier and another group in a slower one. The stretch is worth as much
        as the slowest tier that is needed: tiers are gone through from the heaviest on until
        together they hold all main groups.
        """
        scores: TierScores = self._scores
        groups: cython.uint = 0
        i: cython.Py_ssize_t
        tier: cython.Py_ssize_t
        cell: cython.Py_ssize_t
        is_complete: cython.bint = False
        for i in range(scores.tier_count):
            tier = scores.order[i]
            if tier >= self._plans.tiers_used:
                continue
            cell = worker * scores.tier_count + tier
            if self._by_tier[cell] == self._start and self._tier_held[cell] & main == main:
                self._by_tier[cell] = self._end
            groups |= self._tier_held[cell]
            if not is_complete and groups & main == main:
                scores.best[self._row + worker] = scores.same[tier]
                is_complete = True

    def _finish(
        self, scores: cython.double[::1], worker_count: cython.Py_ssize_t, ratio: cython.Py_ssize_t
    ) -> cython.void:
        """Round down to what engines reuse, and score each worker."""
        plans: WorkerPlans = self._plans
        tier_count: cython.Py_ssize_t = self._scores.tier_count
        worker: cython.Py_ssize_t
        cell: cython.Py_ssize_t
        align: cython.Py_ssize_t
        dropped: cython.Py_ssize_t
        last: cython.Py_ssize_t
        for worker in range(worker_count):
            if self._matched[worker] == 0:
                continue
            align = plans.align[worker]
            dropped = plans.dropped[worker]
            if plans.rule_count[worker] == 0:  # every multiple of a block is an end
                self._open_ends[worker] = _rounded(min(self._matched[worker], self._blocks), align)
                self._ends[worker] = _rounded(min(self._matched[worker], self._limit), align)
            if dropped:  # a draft model computes the last block again
                self._open_ends[worker] = _rounded(max(self._open_ends[worker] - dropped, 0), align)
                self._ends[worker] = _rounded(max(self._ends[worker] - dropped, 0), align)
            align = plans.main_block[worker]
            if align > 1:
                self._matched[worker] = _rounded(self._matched[worker], align)
                for cell in range(worker * tier_count, (worker + 1) * tier_count):
                    self._by_tier[cell] = _rounded(self._by_tier[cell], align)
            last = _rounded(self._open_ends[worker], ratio)
            if last > 0:
                scores[worker] = self._scores.score(
                    self._stretch_ends, worker, worker_count, last, plans.tiers_used, ratio
                )


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _rounded(blocks: cython.Py_ssize_t, step: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Return the greatest multiple of `step` that is at most `blocks`."""
    return blocks if step == 1 else blocks - blocks % step
