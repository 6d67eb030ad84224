"""A naive index: dictionaries of counts, walked block by block; and a small world to try it in."""

from __future__ import annotations

from collections import defaultdict

from indexer import Place, Worker

PODS = ["a:1", "b:1", "c:1"]
MODELS = {"a:1": "m", "b:1": "m", "c:1": "other"}
WORKERS = [Worker("a:1", 0), Worker("a:1", 1), Worker("b:1", 0), Worker("c:1", 0)]
PLACES = [Place("gpu", 0), Place("cpu", 0), Place("disk", 0), Place("gpu", 1)]
WEIGHTS = {"gpu": 1.0, "cpu": 0.8}
CHAIN = [10_000 + number for number in range(8)]  # the blocks of one prompt, by key


def engine_hash(block: int, salt: int) -> int:
    """The hash of a block; the same number means another block to another pod."""
    return block * 8 + salt


class NaiveIndex:
    """Copies by (worker, place, hash), and what each worker's hashes mean."""

    def __init__(self, count_copies: bool) -> None:
        self.count_copies = count_copies
        self.copies: dict[tuple[Worker, Place, int, int], int] = defaultdict(int)
        self.meaning: dict[tuple[Worker, int], int] = {}

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
        """What was stored under a hash; it outlives what the hash means."""
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

    def tiers(self, worker: Worker, key: int) -> set[str]:
        return {
            place.tier
            for (holder, place, _, held), count in self.copies.items()
            if holder == worker and held == key and count and place.group == 0
        }

    def match(self, worker: Worker, keys: list[int]) -> tuple[int, float, dict[str, int]]:
        held = [self.tiers(worker, key) for key in keys]
        matched, score = 0, 0.0
        for tiers in held:
            if not tiers:
                break
            matched += 1
            score += max(WEIGHTS.get(tier, 1.0) for tier in tiers)
        by_tier = {}
        for tier in ("gpu", "cpu", "disk"):
            leading = 0
            while leading < len(held) and tier in held[leading]:
                leading += 1
            if leading:
                by_tier[tier] = leading
        return matched, score, by_tier
