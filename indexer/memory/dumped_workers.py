"""Checks the workers of a dumped index; the walk trusts their numbers as the table trusts holders.

Each function raises KeyError, TypeError or ValueError for what cannot be right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from indexer.cache_layout import CacheLayout
from indexer.memory.dumped_values import distinct_integers, integer, text
from indexer.memory.workers import WorkerEntry
from indexer.scheme import model_scope
from indexer.types import Place, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from indexer.memory.dumped_table import DumpedTable

_MOST_WORKERS = 2**24
_MOST_TIERS = 65  # with `other`, see `TierRegistry`
_MOST = 2**64 - 1
_LEAST = -(2**63)
_LONGEST_KEY = 2**31 - 1


def dumped_tiers(dumped: Any) -> list[str]:
    """Return the names of the tiers."""
    names = [text(name) for name in dumped]
    if not isinstance(dumped, list) or len(set(names)) < len(names) or len(names) > _MOST_TIERS:
        raise ValueError(f"there cannot be {len(names)} such tiers")
    return names


def dumped_entries(dumped: dict[str, Any], table: DumpedTable) -> Iterator[WorkerEntry]:
    """Yield the entries of all workers. Numbers are theirs or free, none is missing or used twice.

    Workers own the holders of `table` from now on.
    """
    count = integer(dumped["numbers"], 0, _MOST_WORKERS)
    entries = dumped["entries"]
    taken = distinct_integers([entry["number"] for entry in entries], 0, count - 1)
    free = distinct_integers(dumped["free"], 0, count - 1)
    if len(taken | free) != count or taken & free:
        raise ValueError("the numbers of the workers are not those in use")
    names = set()
    for dumped_entry in entries:
        entry = _entry(dumped_entry, table)
        names.add(entry.worker)
        yield entry
    if len(names) != len(entries):
        raise ValueError("there is a worker twice")


def _entry(dumped: dict[str, Any], table: DumpedTable) -> WorkerEntry:
    pod, rank = dumped["worker"]
    model = text(dumped["model"])
    scope = model_scope(model)
    holders = {
        Place(text(tier), integer(group, -1, _MOST)): table.own(holder, scope)
        for tier, group, holder in dumped["holders"]
    }
    if len(holders) != len(dumped["holders"]):
        raise ValueError("a worker has two holders for one place")
    return WorkerEntry(
        worker=Worker(text(pod), integer(rank, 0, _MOST)),
        number=dumped["number"],
        layout=_layout(dumped["layout"]),
        model=model,
        scope=scope,
        announcer=table.own(dumped["announcer"], scope, announcer=True),
        holders=holders,
    )


def _layout(dumped: Any) -> CacheLayout:
    size, groups, chunk, speculative, chunks = dumped
    integer(size, 0, _LONGEST_KEY)
    for number, kind, window, block_size in groups:
        integer(number, 0, _MOST)
        text(kind)
        integer(window, _LEAST, _MOST)
        integer(block_size, 0, _MOST)
    integer(chunk, 0, _MOST)
    if speculative is not None and type(speculative) is not bool:
        raise TypeError(f"speculative is {speculative!r:.40}")
    for tier, length in chunks:
        text(tier)
        integer(length, 0, _MOST)
    return CacheLayout.load(dumped)
