"""Checks a dumped block table before the kernel trusts its numbers.

A file with right checksums may contain anything. Numbers of holders and of sets are indices into C
arrays, and counts end loops: a wrong one would crash the process, or keep it busy for ever. What
can be counted anew is counted, and a table whose counts do not add up is refused.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.memory.dumped_values import distinct_integers, integer, numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_SEGMENTS = 256
_BLOCK_WORDS, _MAPPING_WORDS = 2, 3
_MOST_HOLDERS = 2**31 - 1
_MOST_COPIES = 0xFFFF
_SET_BYTES, _HOLDER_BYTES, _EXTRA_BYTES = 320, 8, 160  # as the kernel reckons
_SET_NUMBER = np.uint64(0xFFFFFFFF)
_NUMBER_AND_AGE = np.uint64(0xFF_FFFFFFFF)
_NUMBER_AGE_AND_SPAN = np.uint64(0xFFFF00FF_FFFFFFFF)


class DumpedTable:
    """The first record of a dumped table, and what the records of segments must fit.

    Each method raises KeyError, TypeError or ValueError for what cannot be right.
    """

    def __init__(self, dumped: dict[str, Any], limit_bytes: int) -> None:
        """Check the first record; limit_bytes: what the table may occupy."""
        self._limit_bytes = limit_bytes
        self._blocks = integer(dumped["blocks"], 0, 2**40)
        self._mappings = integer(dumped["mappings"], 0, 2**40)
        integer(dumped["epoch"], 0, 255)
        self._read_holders(dumped["holders"], dumped["sets"]["retired"])
        self._read_sets(dumped["sets"])
        references = sum(map(self._check_references, (dumped["copies"], dumped["shared"])))
        self._bytes = (
            _SET_BYTES * int(np.count_nonzero(self._sizes))
            + _HOLDER_BYTES * len(self._members)
            + _EXTRA_BYTES * references
        )
        self._check_limit(8 * (_BLOCK_WORDS * self._blocks + _MAPPING_WORDS * self._mappings))

    def _read_holders(self, dumped: dict[str, Any], retired: Any) -> None:
        count = self._count = integer(dumped["count"], 0, _MOST_HOLDERS)
        self._scopes = numbers(dumped["scopes"], "Q")
        self._held = numbers(dumped["held"], "Q")
        self._evicted = numbers(dumped["lost"], "Q")
        self._announcer = numbers(dumped["announcer"], "B")
        columns = (self._scopes, self._held, self._evicted, self._announcer)
        if {len(column) for column in columns} != {len(self._scopes)} or len(self._scopes) < count:
            raise ValueError(f"{count} holders do not fit their columns")
        if self._announcer.max(initial=0) > 1:
            raise ValueError("a holder is an announcer, or is none")
        free = distinct_integers(dumped["free"], 0, count - 1)
        retired = distinct_integers(retired, 0, count - 1)
        self._unowned = np.ones(count, bool)  # neither free nor retired, nor owned by a worker
        self._unowned[[*free, *retired]] = False
        if np.count_nonzero(self._unowned) != count - len(free) - len(retired):
            raise ValueError("a free holder has retired")
        self._is_free = np.zeros(count, bool)
        self._is_free[list(free)] = True
        self._counts = self._unowned.copy()  # whether what a holder holds is counted

    def _read_sets(self, dumped: dict[str, Any]) -> None:
        sizes = self._sizes = numbers(dumped["sizes"], "I").astype(np.int64)
        members = self._members = numbers(dumped["holders"], "I")
        if not len(sizes) or sizes[0] or int(sizes.sum()) != len(members):
            raise ValueError(f"{len(members)} holders are not in {len(sizes)} sets")
        if len(members) and int(members.max()) >= self._count:
            raise ValueError("a set has a holder that does not exist")
        self._set_of = np.repeat(np.arange(len(sizes)), sizes)
        follows = self._set_of[1:] == self._set_of[:-1]
        if (members[1:][follows] <= members[:-1][follows]).any():
            raise ValueError("the holders of a set are not in ascending order")
        ends = np.cumsum(sizes)
        names = {members[end - size : end].tobytes() for end, size in zip(ends, sizes, strict=True)}
        if len(names - {b""}) != np.count_nonzero(sizes):
            raise ValueError("there is a set twice")
        self._usable = sizes > 0
        self._usable[self._set_of[self._is_free[members]]] = False
        self._references = numbers(dumped["references"], "I")[: len(sizes)]
        if len(self._references) != len(sizes):
            raise ValueError("there are sets without a count of references")
        self._in_blocks = np.zeros(len(sizes), np.int64)  # set -> blocks that have it
        self._in_mappings = np.zeros(len(sizes), np.int64)

    def _check_references(self, dumped: Any) -> int:
        """Check references beyond the first; returns for how many names there are any."""
        total = 0
        distinct_integers([holder for holder, _, _ in dumped], 0, self._count - 1)
        for _, *columns in dumped:
            names, counts = (numbers(column, "Q") for column in columns)
            if len(names) != len(counts) or len(np.unique(names)) != len(names):
                raise ValueError("there are names without a count of copies, or with several")
            if len(counts) and not 0 < int(counts.min()) <= int(counts.max()) <= _MOST_COPIES:
                raise ValueError("a number of copies is out of bounds")
            total += len(names)
        return total

    def _check_limit(self, slot_bytes: int) -> None:
        used = self._bytes + slot_bytes
        # Slots never exceed the limit. What sets and refcounts take beyond it is given back by
        # evictions, which come after the event that has made them necessary.
        if slot_bytes > self._limit_bytes or used > 2 * self._limit_bytes:
            raise ValueError(
                f"the index takes {used:,} bytes, and the limit is {self._limit_bytes:,}"
            )

    # Slots

    def slots(self, records: Iterator[dict[str, Any]]) -> Iterator[tuple[array[int], int]]:
        """Yield the words of the used slots of each segment, and words per slot."""
        slot_bytes = 0
        for width in [_BLOCK_WORDS] * _SEGMENTS + [_MAPPING_WORDS] * _SEGMENTS:
            record = next(records, None)
            if record is None:
                raise ValueError("segments are missing")
            words = numbers(record["words"], "Q")
            slot_bytes += words.nbytes
            self._check_limit(slot_bytes)
            if len(words) != integer(record["slots"], 1, 2**40) * width:
                raise ValueError(f"{record['slots']} slots cannot have {len(words)} words")
            used = self._used_slots(words.reshape(-1, width))
            if len(used) != integer(record["used"], 0, 2**40):
                raise ValueError(f"of the slots are {len(used)} used, not {record['used']}")
            yield array("Q", used.tobytes()), width
        self._check_counts()

    def _used_slots(self, slots: NDArray[Any]) -> NDArray[Any]:
        sets = slots[:, 1] & _SET_NUMBER
        is_used = sets != 0
        used, sets = slots[is_used], sets[is_used].astype(np.int64)
        if len(sets) and (int(sets.max()) >= len(self._usable) or not self._usable[sets].all()):
            raise ValueError("a slot has a holder set that does not exist")
        is_block = slots.shape[1] == _BLOCK_WORDS
        used[:, 1] &= _NUMBER_AND_AGE if is_block else _NUMBER_AGE_AND_SPAN
        np.add.at(self._in_blocks if is_block else self._in_mappings, sets, 1)
        return np.asarray(used)

    def _check_counts(self) -> None:
        """Compare what the segments have with the counts of the first record."""
        if (self._in_blocks.sum(), self._in_mappings.sum()) != (self._blocks, self._mappings):
            raise ValueError("the numbers of blocks and mappings are wrong")
        if (self._in_blocks + self._in_mappings != self._references).any():
            raise ValueError("the references of holder sets are wrong")
        held, mapped = (
            np.bincount(self._members, counts[self._set_of], self._count).astype(np.uint64)
            for counts in (self._in_blocks, self._in_mappings)
        )
        is_announcer = self._announcer[: self._count] == 1
        if held[is_announcer].any():
            raise ValueError("an announcer holds blocks")
        is_counted = self._counts & ~is_announcer
        if (held != self._held[: self._count])[is_counted].any():
            raise ValueError("the number of blocks that a holder holds is wrong")
        has_lost = self._evicted[: self._count] > 0
        if (is_counted & (held == 0) & (mapped > 0) & ~has_lost).any():
            raise ValueError("a holder has mappings, and no blocks")

    # Workers

    def own(self, holder: Any, scope: int, *, announcer: bool = False) -> int:
        """Return a holder or announcer that a worker of `scope` has and no other."""
        number = integer(holder, 0, self._count - 1)
        if not self._unowned[number]:
            raise ValueError(f"holder {number} is free, has retired, or belongs to two workers")
        if bool(self._announcer[number]) != announcer or int(self._scopes[number]) != scope:
            raise ValueError(f"holder {number} is another worker's")
        self._unowned[number] = False
        return number
