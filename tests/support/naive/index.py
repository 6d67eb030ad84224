"""A naive index: dictionaries of counts, walked block by block; and a few workers and blocks."""

from __future__ import annotations

from collections import defaultdict

from indexer import Attention, CacheLayout, Place, Worker
from support.naive.reuse import LAYOUTS, reusable_blocks

PODS = ["a:1", "b:1", "c:1"]
MODELS = {"a:1": "m", "b:1": "m", "c:1": "other"}
WORKERS = [Worker("a:1", 0), Worker("a:1", 1), Worker("b:1", 0), Worker("c:1", 0)]
PLACES = [Place("gpu", 0), Place("cpu", 0), Place("disk", 0), Place("gpu", 1), Place("cpu", 1)]
WEIGHTS = {"gpu": 1.0, "cpu": 0.8}
CHAIN = [10_000 + number for number in range(8)]  # the blocks of one prompt, by key


def engine_hash(block: int, salt: int) -> int:
    """An engine hash of a block; `salt` makes several for one block."""
    return block * 8 + salt


class NaiveIndex:
    """Copies by (worker, place, engine hash, key), and the mapping of each worker."""

    def __init__(self, count_copies: bool) -> None:
        self.count_copies = count_copies
        self.copies: dict[tuple[Worker, Place, int, int], int] = defaultdict(int)
        self.meaning: dict[tuple[Worker, int], int] = {}
        self.layouts: dict[Worker, CacheLayout] = {}

    def layout(self, worker: Worker) -> CacheLayout:
        return self.layouts.get(worker, LAYOUTS["plain"])

    def main(self, worker: Worker) -> list[int]:
        """The numbers of the worker's main groups."""
        groups = self.layout(worker).groups
        return [number for number, of in groups.items() if of.attention is Attention.MAIN]

    def store(self, worker: Worker, place: Place, hashes: list[int], keys: list[int]) -> None:
        for name, key in zip(hashes, keys, strict=True):
            self.meaning[worker, name] = key
            self._add((worker, place, name, key))

    def _add(self, copy: tuple[Worker, Place, int, int]) -> None:
        self.copies[copy] = self.copies[copy] + 1 if self.count_copies else 1

    def store_known(self, worker: Worker, place: Place, hashes: list[int]) -> int:
        unknown = 0
        for name in hashes:
            key = self.meaning.get((worker, name))
            if key is None:
                unknown += 1
            else:
                self._add((worker, place, name, key))
        return unknown

    def remove(self, worker: Worker, place: Place, hashes: list[int]) -> int:
        unknown = 0
        for name in hashes:
            copy = self.held(worker, place, name)
            if copy is not None:
                self.copies[copy] -= 1
            else:
                unknown += 1
        return unknown

    def held(
        self, worker: Worker, place: Place, name: int
    ) -> tuple[Worker, Place, int, int] | None:
        """The copy that was stored under an engine hash; it outlives the mapping."""
        found = [c for c, n in self.copies.items() if n and c[:3] == (worker, place, name)]
        return found[0] if found else None

    def clear(self, worker: Worker, tier: str) -> None:
        for copy in [c for c in self.copies if c[0] == worker and c[1].tier == tier]:
            del self.copies[copy]

    def forget(self, pod: str) -> None:
        for copy in [copy for copy in self.copies if copy[0].pod == pod]:
            del self.copies[copy]
        for known in [known for known in self.meaning if known[0].pod == pod]:
            del self.meaning[known]
        for worker in [worker for worker in self.layouts if worker.pod == pod]:
            del self.layouts[worker]

    def tiers(self, worker: Worker, group: int, key: int) -> set[str]:
        return {
            place.tier
            for (holder, place, _, held), count in self.copies.items()
            if holder == worker and held == key and count and place.group == group
        }

    def match(self, worker: Worker, keys: list[int]) -> tuple[int, float, dict[str, int], int]:
        """Matched blocks, score, blocks by tier, reusable tokens; one token follows the keys."""
        main = self.main(worker)
        held = [{group: self.tiers(worker, group, key) for group in (0, 1)} for key in keys]
        matched = _leading([all(of[group] for group in main) for of in held])
        end = reusable_blocks(
            self.layout(worker), lambda group, at: bool(held[at][group]), len(keys)
        )
        score = sum(
            min(max(WEIGHTS.get(tier, 0.0) for tier in of[group]) for group in main)
            for of in held[:end]
        )
        by_tier = {
            tier: leading
            for tier in ("gpu", "cpu", "disk")
            if (leading := _leading([all(tier in of[group] for group in main) for of in held]))
        }
        return matched, score, by_tier, 16 * end


def _leading(held: list[bool]) -> int:
    return held.index(False) if False in held else len(held)
