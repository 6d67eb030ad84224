"""Reads all rows of a generation."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

from store.errors import decoding
from store.records import check_holder_ids, checked_columns

if TYPE_CHECKING:
    from indexer import CacheLayout, ReplicatedIndex, StableHolderIds, Worker
    from store.store import Store


class Rows(NamedTuple):
    """Everything that a worker holds; see `indexer.Changes` for the columns."""

    names: array[int]
    counts: array[int]
    rows: array[int]

    def apply(
        self,
        index: ReplicatedIndex,
        worker: Worker,
        layout: CacheLayout,
        holder_ids: StableHolderIds,
    ) -> None:
        """Put the rows into an index that the worker has joined.

        Raises StoreError of kind malformed if they do not fit together.
        """
        with decoding("generation"):
            check_holder_ids(self.rows, holder_ids)
            index.apply(worker, layout, holder_ids, *self)


async def read_rows(store: Store, home: int, generation: str) -> Rows:
    """Return the rows of a generation. Raises StoreError."""
    names, counts, rows = array("Q"), array("H"), array("Q")
    pairs = await store.read_generation(home, generation)
    with decoding("generation"):
        for name, rows_of_name in pairs:
            names.frombytes(name)
            counts.append(len(rows_of_name) // 16)
            rows.frombytes(rows_of_name)
        return Rows(*checked_columns(names, counts, rows))
