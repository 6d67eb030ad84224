# cython: boundscheck=False, wraparound=False, initializedcheck=False, warn.unreachable=False
# cython: cdivision=True
"""What the prefix walk knows of workers: whose a holder's blocks are, and what engines reuse.

An engine can reuse a prompt up to an end `e` if every kind of its cache groups allows it, see
`indexer.cache_layout`, and whether a kind does depends on the blocks before `e` alone. So it is
enough to remember, for each rule, where the run of held blocks began that reaches the present
position.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import cython

if TYPE_CHECKING:
    from indexer.cache_layout import ReusePlan

_INITIAL_ROOM = 64
_RULES = cython.declare(cython.Py_ssize_t, 8)  # room for the rules of one worker
# Of `indexer.cache_layout.Attention`.
_SLIDING = cython.declare(cython.int, 2)
_CHUNKED = cython.declare(cython.int, 4)


@cython.cclass
class WorkerPlans:
    """Columns for holders and for workers. Both are small numbers that the caller gives.

    Attributes:
        workers: holder -> worker, -1 if its blocks count for none.
        tiers: holder -> tier.
        bits: holder -> bit of its cache group in the worker's masks.
        chunks: holder -> blocks that its tier loads as a whole, 0 if it loads each on its own.
        tiers_used: one more than the highest tier of any holder so far.
        plain: worker -> whether it has one main group, and neither rules nor chunks.
        main, main_block, align, dropped: worker -> the field of `ReusePlan` of that name.
        rule_count: worker -> rules it has.
        low, step: the outcome of `allows`: the ends are the multiples of `step` from `low` on.
    """

    def __init__(self) -> None:
        self.workers = array("i", [-1]) * _INITIAL_ROOM
        self.tiers = array("B", bytes(_INITIAL_ROOM))
        self.bits = array("I", bytes(4 * _INITIAL_ROOM))
        self.chunks = array("I", bytes(4 * _INITIAL_ROOM))
        self.tiers_used = 0
        self.plain = array("B", bytes(_INITIAL_ROOM))
        self.main = array("I", bytes(4 * _INITIAL_ROOM))
        self.main_block = array("I", [1]) * _INITIAL_ROOM
        self.align = array("I", [1]) * _INITIAL_ROOM
        self.dropped = array("I", bytes(4 * _INITIAL_ROOM))
        self.rule_count = array("B", bytes(_INITIAL_ROOM))
        # Columns of rules: worker * _RULES + rule -> the field of `Rule` of that name.
        self._attention = array("B", bytes(_RULES * _INITIAL_ROOM))
        self._mask = array("I", bytes(4 * _RULES * _INITIAL_ROOM))
        self._block = array("I", bytes(4 * _RULES * _INITIAL_ROOM))
        self._reach = array("I", bytes(4 * _RULES * _INITIAL_ROOM))
        # Of one walk: where the run of blocks began that all groups of the rule hold; -1: no run.
        self._runs = array("i", bytes(4 * _RULES * _INITIAL_ROOM))
        self.low = 0
        self.step = 1

    def place(
        self,
        holder: cython.Py_ssize_t,
        worker: cython.int,
        tier: cython.uchar = 0,
        bit: cython.uint = 0,
        chunk: cython.uint = 0,
    ) -> None:
        """Count the blocks of `holder` for a worker, in a tier and a cache group.

        Args:
            holder: a number that need not have been used before.
            worker: -1 if its blocks count for no worker.
            tier: the number of its tier.
            bit: of its group in the worker's plan; 0 if the group counts for nothing.
            chunk: blocks that the tier loads as a whole: such a chunk of a prompt is held if its
                last block is. 0: the tier loads each block on its own.
        """
        while holder >= len(self.workers):
            self.workers = _doubled(array("i", self.workers), -1)
            self.tiers = _doubled(array("B", self.tiers), 0)
            self.bits = _doubled(array("I", self.bits), 0)
            self.chunks = _doubled(array("I", self.chunks), 0)
        self.workers[holder] = worker if bit or worker < 0 else -1
        self.tiers[holder] = tier
        self.tiers_used = max(self.tiers_used, cython.cast(cython.Py_ssize_t, tier) + 1)
        self.bits[holder] = bit
        self.chunks[holder] = chunk

    def describe(self, worker: cython.Py_ssize_t, plan: ReusePlan, chunked: cython.bint) -> None:
        """Set how `worker` reuses blocks. chunked: whether any of its tiers loads chunks."""
        i: cython.Py_ssize_t
        column: cython.Py_ssize_t
        while worker >= len(self.main):
            self._make_room()
        has_one_group = plan.main != 0 and plan.main & (plan.main - 1) == 0
        self.plain[worker] = has_one_group and not plan.rules and not chunked
        self.main[worker] = plan.main
        self.main_block[worker] = plan.main_block
        self.align[worker] = plan.align
        self.dropped[worker] = plan.dropped
        self.rule_count[worker] = len(plan.rules)
        for i in range(len(plan.rules)):
            column = worker * _RULES + i
            self._attention[column] = plan.rules[i].attention
            self._mask[column] = plan.rules[i].mask
            self._block[column] = plan.rules[i].block
            self._reach[column] = plan.rules[i].reach

    def _make_room(self) -> cython.void:
        self.plain = _doubled(array("B", self.plain), 0)
        self.main = _doubled(array("I", self.main), 0)
        self.main_block = _doubled(array("I", self.main_block), 1)
        self.align = _doubled(array("I", self.align), 1)
        self.dropped = _doubled(array("I", self.dropped), 0)
        self.rule_count = _doubled(array("B", self.rule_count), 0)
        self._attention = _doubled(array("B", self._attention), 0)
        self._mask = _doubled(array("I", self._mask), 0)
        self._block = _doubled(array("I", self._block), 0)
        self._reach = _doubled(array("I", self._reach), 0)
        self._runs = _doubled(array("i", self._runs), 0)

    # During a walk

    def begin_runs(self, worker: cython.Py_ssize_t) -> cython.void:
        """Let the runs of all rules begin at block 0, for a new walk."""
        i: cython.Py_ssize_t
        for i in range(worker * _RULES, worker * _RULES + self.rule_count[worker]):
            self._runs[i] = 0

    def allows(
        self, worker: cython.Py_ssize_t, held: cython.uint, start: cython.Py_ssize_t
    ) -> cython.bint:
        """Return whether an engine may reuse up to an end after `start`; see `low` and `step`.

        held: bits of the groups that hold the blocks from `start` to the end. Calls of one walk
        go from block 0 on and leave no blocks out.
        """
        rule: cython.Py_ssize_t
        begin: cython.Py_ssize_t
        first: cython.Py_ssize_t = worker * _RULES
        last: cython.Py_ssize_t = first + self.rule_count[worker]
        self.low = start + 1
        self.step = self.align[worker]
        for rule in range(first, last):
            if held & self._mask[rule] != self._mask[rule]:
                self._runs[rule] = -1
                if self._attention[rule] != _CHUNKED:
                    # Sliding windows and mamba need the block right before the end.
                    self._update_runs(rule + 1, last, held, start)
                    return False
                # Where a new attention chunk begins, none of its blocks are needed yet.
                self.step = _lcm(self.step, self._reach[rule])
                continue
            if self._runs[rule] < 0:
                self._runs[rule] = start
            begin = self._runs[rule]
            if self._attention[rule] == _SLIDING and begin > 0:
                # The engine has whole blocks only, and needs a full window of them. A run from
                # block 0 on serves any end: a window never reaches back beyond the prompt.
                begin = _rounded_up(begin, self._block[rule])
                self.low = max(self.low, begin + self._reach[rule])
            elif self._attention[rule] == _CHUNKED:
                # The attention chunk of the end must have begun within the run.
                begin = _rounded_up(begin, self._reach[rule])
                self.low = max(self.low, begin)
        return True

    def _update_runs(
        self,
        rule: cython.Py_ssize_t,
        last: cython.Py_ssize_t,
        held: cython.uint,
        start: cython.Py_ssize_t,
    ) -> cython.void:
        """Begin and break the runs of the rules from `rule` to `last`, without looking for ends."""
        while rule < last:
            if held & self._mask[rule] != self._mask[rule]:
                self._runs[rule] = -1
            elif self._runs[rule] < 0:
                self._runs[rule] = start
            rule += 1


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _rounded_up(blocks: cython.Py_ssize_t, step: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Return the least multiple of `step` that is at least `blocks`."""
    return (blocks + step - 1) // step * step


@cython.cfunc
@cython.exceptval(check=False)
def _lcm(a: cython.Py_ssize_t, b: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Return the least common multiple."""
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
