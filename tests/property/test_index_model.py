"""The index against a naive model: dictionaries of counts, walked block by block."""

from __future__ import annotations

from array import array
from collections import defaultdict

import msgpack
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from indexer import EngineHash, MemoryIndex, Place, Worker

PODS = ["a:1", "b:1", "c:1"]
MODELS = {"a:1": "m", "b:1": "m", "c:1": "other"}
WORKERS = [Worker("a:1", 0), Worker("a:1", 1), Worker("b:1", 0), Worker("c:1", 0)]
PLACES = [Place("gpu", 0), Place("cpu", 0), Place("disk", 0), Place("gpu", 1)]
WEIGHTS = {"gpu": 1.0, "cpu": 0.8}
CHAIN = [10_000 + number for number in range(8)]  # the blocks of one prompt, by key

workers = st.sampled_from(WORKERS)
places = st.sampled_from(PLACES)
runs = st.tuples(st.integers(0, 7), st.integers(1, 4))
salts = st.integers(0, 2)  # several engine hashes for a block, as re-loaded adapters have


def engine_hash(block: int, salt: int) -> int:
    """The hash of a block; the same number means another block to another pod."""
    return block * 8 + salt


class Model:
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


class IndexMachine(RuleBasedStateMachine):
    """Random events of a few workers over a few blocks, so that everything collides."""

    @initialize(count_copies=st.booleans())
    def begin(self, count_copies: bool) -> None:
        self.index = MemoryIndex(64 * 1024**2, WEIGHTS, count_copies)
        self.model = Model(count_copies)
        for worker in WORKERS:
            self.index.join(worker, MODELS[worker.pod])

    def _blocks(
        self, worker: Worker, run: tuple[int, int], salt: int
    ) -> tuple[list[int], list[int]]:
        blocks = range(run[0], min(8, run[0] + run[1]))
        shift = 1 if worker.pod == "b:1" else 0  # the same hash, another block
        return (
            [engine_hash((block + shift) % 8, salt) for block in blocks],
            [CHAIN[block] for block in blocks],
        )

    @rule(worker=workers, place=places, run=runs, salt=salts)
    def store(self, worker: Worker, place: Place, run: tuple[int, int], salt: int) -> None:
        hashes, keys = self._blocks(worker, run, salt)
        self.index.store(worker, place, array("Q", hashes), array("Q", keys))
        self.model.store(worker, place, hashes, keys)

    @rule(worker=workers, place=places, run=runs, salt=salts)
    def store_known(self, worker: Worker, place: Place, run: tuple[int, int], salt: int) -> None:
        hashes, _ = self._blocks(worker, run, salt)
        found = self.index.store_known(worker, place, array("Q", hashes))
        assert found == self.model.store_known(worker, place, hashes)

    @rule(worker=workers, place=places, run=runs, salt=salts)
    def remove(self, worker: Worker, place: Place, run: tuple[int, int], salt: int) -> None:
        hashes, _ = self._blocks(worker, run, salt)
        found = self.index.remove(worker, place, array("Q", hashes))
        assert found == self.model.remove(worker, place, hashes)

    @rule(worker=workers, tier=st.sampled_from(["gpu", "cpu"]))
    def clear(self, worker: Worker, tier: str) -> None:
        self.index.clear(worker, (tier,))
        self.model.clear(worker, tier)

    @rule(pod=st.sampled_from(PODS))
    def forget_and_join_again(self, pod: str) -> None:
        for worker in WORKERS:
            if worker.pod == pod:
                assert self.index.leave(worker)
                assert not self.index.leave(worker)
        self.model.forget(pod)
        for worker in WORKERS:
            if worker.pod == pod:
                self.index.join(worker, MODELS[pod])

    @rule(worker=workers)
    def restart(self, worker: Worker) -> None:
        self.index.restart(worker, ("gpu", "cpu"))
        self.model.clear(worker, "gpu")
        self.model.clear(worker, "cpu")
        for known in [known for known in self.model.meaning if known[0] == worker]:
            del self.model.meaning[known]

    @rule(segments=st.integers(1, 300))
    def tidy(self, segments: int) -> None:
        self.index.tidy(segments)

    @rule()
    def dump_and_load(self) -> None:
        packed = [msgpack.packb(record) for record in self.index.dump()]
        records = (msgpack.unpackb(record, strict_map_key=False) for record in packed)
        self.index = MemoryIndex.load(records, 64 * 1024**2, WEIGHTS)

    @invariant()
    def scores_agree(self) -> None:
        for model in ("m", "other"):
            for keys in (CHAIN, CHAIN[3:], CHAIN[5:6]):
                match = self.index.match(model, array("Q", keys))
                for pod in PODS:
                    self._check_pod(model, pod, keys, match.best_of(pod))

    def _check_pod(self, model: str, pod: str, keys: list[int], found: object) -> None:
        if MODELS[pod] != model:
            assert found is None
            return
        ranks = [worker for worker in WORKERS if worker.pod == pod]
        matches = {worker: self.model.match(worker, keys) for worker in ranks}
        assert found is not None
        worker = found.worker  # type: ignore[attr-defined]
        matched, score, by_tier = matches[worker]
        assert score == pytest.approx(max(score for _, score, _ in matches.values()))
        assert found.matched_blocks == matched  # type: ignore[attr-defined]
        assert found.score == pytest.approx(score)  # type: ignore[attr-defined]
        assert found.by_tier == by_tier  # type: ignore[attr-defined]

    @invariant()
    def meanings_and_counts_agree(self) -> None:
        for worker in WORKERS:
            for block in range(8):
                name = engine_hash(block, 0)
                known = self.index.key_of(worker, EngineHash(name))
                assert known == self.model.meaning.get((worker, name))
        for blocks in self.index.workers():
            held: dict[str, set[tuple[Place, int]]] = defaultdict(set)
            for (worker, place, _, key), count in self.model.copies.items():
                if worker == blocks.worker and count:
                    held[place.tier].add((place, key))
            expected = {tier: len(keys) for tier, keys in held.items()}
            assert {tier: count for tier, count in blocks.by_tier.items() if count} == expected


TestIndexAgainstModel = IndexMachine.TestCase
TestIndexAgainstModel.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
