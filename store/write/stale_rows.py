"""Rows of holder ids that were released: blocks still have their bits, and only the rows say which.

A clear or a restart leaves them in the store, for the garbage collector. A write that takes their
place has to clear the bits itself.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from store.errors import decoding
from store.layout import pages_of
from store.scripts import ReadRows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from store.store import Store
    from store.write.owned_worker import OwnedWorker


def stale_rows(
    names_and_rows: Iterable[tuple[bytes, bytes]], live: Collection[int]
) -> tuple[array[int], array[int]]:
    """Return the names with rows of holder ids other than `live`, and the keys of their blocks.

    Raises StoreError for malformed rows.
    """
    names, keys = array("Q"), array("Q")
    with decoding("page"):
        for name, packed_rows in names_and_rows:
            rows = array("Q", packed_rows)
            stale = [index for index in range(0, len(rows), 2) if rows[index + 1] >> 32 not in live]
            if stale:
                names.frombytes(name)
                keys.extend(rows[index] for index in stale)
    return names, keys


async def overwritten_keys(
    store: Store, owned: OwnedWorker, names: array[int], live: Collection[int]
) -> array[int]:
    """Return the keys of blocks to which stale rows of some names lead. Raises StoreError."""
    if not names:
        return array("Q")
    packed_names = names.tobytes()
    script = ReadRows(owned.generation, pages_of(names), packed_names)
    rows = await store.call(script, store.layout.home(owned.worker))
    each = (packed_names[start : start + 8] for start in range(0, len(packed_names), 8))
    return stale_rows(zip(each, rows, strict=True), live)[1]
