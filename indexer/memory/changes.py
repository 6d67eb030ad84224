"""What has changed of one worker: as engine hashes and keys while it is pending, then as values."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from indexer.holder_ids import StableHolderIds
    from indexer.types import Hashes


class Changes(NamedTuple):
    """What a worker has now under the names that have changed; for rows see `indexer.kernel.rows`.

    All values are absolute: to apply them twice changes nothing, and to apply them after newer
    ones does no harm if the newer ones follow again.
    """

    names: array[int]
    """Engine hashes and names of their parts, typecode 'Q', in ascending order."""
    counts: array[int]
    """The number of rows of each name, typecode 'H'."""
    rows: array[int]
    """The rows of all names, typecode 'Q'."""
    keys: array[int]
    """Keys of the blocks that may have other holders now, typecode 'Q', in ascending order."""
    scored: list[int]
    """The holder ids that count in scores."""
    masks: array[int]
    """For each of `keys` a mask, typecode 'Q': bit `j` is set if `scored[j]` holds the block."""
    holder_ids: StableHolderIds
    """The worker's holder ids now."""


@dataclass(slots=True)
class PendingChanges:
    """What has changed of a worker since changes were last drained, with repetitions.

    Only names are kept, not values: what a name stands for is read when changes are drained, so
    a block that comes and goes in between costs one row.
    """

    hashes: array[int] = field(default_factory=lambda: array("Q"))
    """Engine hashes, and names of parts."""
    keys: array[int] = field(default_factory=lambda: array("Q"))
    """Keys of blocks, for those that rows may not lead to any more."""
    ids_changed: bool = True
    """Whether the holder ids or the layout have changed."""

    def __bool__(self) -> bool:
        return bool(self.hashes or self.keys or self.ids_changed)

    def __len__(self) -> int:
        return len(self.hashes) + len(self.keys) + self.ids_changed

    def add(self, hashes: Hashes, keys: array[int]) -> None:
        """Add hashes and keys."""
        self.hashes.extend(hashes)
        self.keys.extend(keys)

    def take(self, limit: int) -> tuple[array[int], array[int]]:
        """Take up to `limit` hashes and `limit` keys out, without repetitions."""
        hashes, keys = distinct(self.hashes), distinct(self.keys)
        self.hashes, self.keys, self.ids_changed = hashes[limit:], keys[limit:], False
        return hashes[:limit], keys[:limit]


def distinct(values: array[int]) -> array[int]:
    """Return the distinct values of an `array('Q')`, in ascending order."""
    return array("Q", np.unique(np.asarray(values, dtype=np.uint64)).tobytes())
