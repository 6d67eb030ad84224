"""Every index there is, in every mode, against a naive one: in memory, and shared through a store.

A shared index is two replicas of it: workers change hands, the store forgets everything, garbage is
collected, and still both replicas and the store itself say what the naive index says.
"""

from __future__ import annotations

import itertools
from array import array
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgpack
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from support.given_keys import GivenKeys
from support.naive.index import (
    CHAIN,
    MODELS,
    PLACES,
    PODS,
    WEIGHTS,
    WORKERS,
    NaiveIndex,
    engine_hash,
)
from support.naive.reuse import LAYOUTS
from support.stores.replicated import ReplicatedIndexes
from support.stores.servers import StoreProcess, cluster_processes, server_program, store_process

from indexer import EngineHash, MemoryIndex, Place, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from indexer import PrefixMatch

workers = st.sampled_from(WORKERS)
places = st.sampled_from(PLACES)
runs = st.tuples(st.integers(0, 7), st.integers(1, 4))
salts = st.integers(0, 2)  # several engine hashes for a block, as re-loaded adapters have


class MemorySubject:
    """The embedded index on its own."""

    def __init__(self, count_copies: bool) -> None:
        self.index = MemoryIndex(64 * 1024**2, WEIGHTS, count_copies)

    def join(self, worker: Worker, model: str) -> None:
        self.index.join(worker, model)

    def of(self, worker: Worker) -> MemoryIndex:
        return self.index

    def leave(self, worker: Worker) -> bool:
        return self.index.leave(worker)

    def dump_and_load(self) -> None:
        packed = [msgpack.packb(record) for record in self.index.dump()]
        records = (msgpack.unpackb(record, strict_map_key=False) for record in packed)
        self.index = MemoryIndex.load(records, 64 * 1024**2, WEIGHTS)


class IndexMachine(RuleBasedStateMachine):
    """Random events of a few workers over a few blocks, so that everything collides."""

    @initialize(count_copies=st.booleans())
    def begin(self, count_copies: bool) -> None:
        self.subject = self.make_subject(count_copies)
        self.model = NaiveIndex(count_copies)
        for worker in WORKERS:
            self.subject.join(worker, MODELS[worker.pod])
            self.subject.of(worker).describe(worker, LAYOUTS["plain"])

    def make_subject(self, count_copies: bool) -> MemorySubject | ReplicatedIndexes:
        return MemorySubject(count_copies)

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
        self.subject.of(worker).store(worker, place, array("Q", hashes), array("Q", keys))
        self.model.store(worker, place, hashes, keys)

    @rule(worker=workers, place=places, run=runs, salt=salts)
    def store_known(self, worker: Worker, place: Place, run: tuple[int, int], salt: int) -> None:
        hashes, _ = self._blocks(worker, run, salt)
        found = self.subject.of(worker).store_known(worker, place, array("Q", hashes))
        assert found == self.model.store_known(worker, place, hashes)

    @rule(worker=workers, place=places, run=runs, salt=salts)
    def remove(self, worker: Worker, place: Place, run: tuple[int, int], salt: int) -> None:
        hashes, _ = self._blocks(worker, run, salt)
        found = self.subject.of(worker).remove(worker, place, array("Q", hashes))
        assert found == self.model.remove(worker, place, hashes)

    @rule(worker=workers, tier=st.sampled_from(["gpu", "cpu"]))
    def clear(self, worker: Worker, tier: str) -> None:
        self.subject.of(worker).clear(worker, (tier,))
        self.model.clear(worker, tier)

    @rule(pod=st.sampled_from(PODS))
    def forget_and_join_again(self, pod: str) -> None:
        for worker in WORKERS:
            if worker.pod == pod:
                assert self.subject.leave(worker)
                assert not self.subject.leave(worker)
        self.model.forget(pod)
        for worker in WORKERS:
            if worker.pod == pod:
                self.subject.join(worker, MODELS[pod])
                self.subject.of(worker).describe(worker, LAYOUTS["plain"])

    @rule(worker=workers, name=st.sampled_from(sorted(LAYOUTS)))
    def describe(self, worker: Worker, name: str) -> None:
        self.subject.of(worker).describe(worker, LAYOUTS[name])
        self.model.layouts[worker] = LAYOUTS[name]

    @rule(worker=workers)
    def restart(self, worker: Worker) -> None:
        self.subject.of(worker).restart(worker, ("gpu", "cpu"))
        self.model.clear(worker, "gpu")
        self.model.clear(worker, "cpu")
        for known in [known for known in self.model.meaning if known[0] == worker]:
            del self.model.meaning[known]

    @invariant()
    def everybody_agrees(self) -> None:
        self.settle()
        for model in ("m", "other"):
            for keys in (CHAIN, CHAIN[3:], CHAIN[5:6]):
                for match in self.ask(model, array("Q", keys)):
                    for pod in PODS:
                        self._check_pod(model, pod, keys, match.best_of(pod))
        for index in self.indexes():
            self._check_meanings_and_counts(index)

    def settle(self) -> None:
        """All that was done is known to everybody who is asked."""

    def ask(self, model: str, keys: array[int]) -> list[PrefixMatch]:
        assert isinstance(self.subject, MemorySubject)
        return [self.subject.index.match(model, GivenKeys(keys))]

    def indexes(self) -> list[MemoryIndex]:
        assert isinstance(self.subject, MemorySubject)
        return [self.subject.index]

    def _check_pod(self, model: str, pod: str, keys: list[int], found: object) -> None:
        if MODELS[pod] != model:
            assert found is None
            return
        ranks = [worker for worker in WORKERS if worker.pod == pod]
        matches = {worker: self.model.match(worker, keys) for worker in ranks}
        assert found is not None
        worker = found.worker  # type: ignore[attr-defined]
        matched, score, by_tier, tokens = matches[worker]
        assert score == pytest.approx(max(each[1] for each in matches.values()))
        assert found.reusable_tokens == tokens  # type: ignore[attr-defined]
        assert found.matched_blocks == matched  # type: ignore[attr-defined]
        assert found.score == pytest.approx(score)  # type: ignore[attr-defined]
        assert found.by_tier == by_tier  # type: ignore[attr-defined]

    def _check_meanings_and_counts(self, index: MemoryIndex) -> None:
        for worker in WORKERS:
            for block in range(8):
                name = engine_hash(block, 0)
                known = index.key_of(worker, EngineHash(name))
                assert known == self.model.meaning.get((worker, name))
        for blocks in index.workers():
            held: dict[Place, set[int]] = defaultdict(set)
            for (worker, place, _, key), count in self.model.copies.items():
                if worker == blocks.worker and count and place.group in self.model.main(worker):
                    held[place].add(key)
            expected: dict[str, int] = defaultdict(int)
            for place, keys in held.items():
                expected[place.tier] = max(expected[place.tier], len(keys))
            assert {tier: count for tier, count in blocks.by_tier.items() if count} == expected


class MemoryMachine(IndexMachine):
    """What only the embedded index can do."""

    @rule(segments=st.integers(1, 300))
    def tidy(self, segments: int) -> None:
        assert isinstance(self.subject, MemorySubject)
        self.subject.index.sweep(segments)

    @rule()
    def dump_and_load(self) -> None:
        assert isinstance(self.subject, MemorySubject)
        self.subject.dump_and_load()


class SharedMachine(IndexMachine):
    """What only an index that is shared has to bear. store: where; set by the test."""

    url = ""
    processes: tuple[StoreProcess, ...] = ()
    namespaces = itertools.count()

    def make_subject(self, count_copies: bool) -> ReplicatedIndexes:
        return ReplicatedIndexes(self.url, f"test{next(self.namespaces)}", count_copies)

    def _shared(self) -> ReplicatedIndexes:
        assert isinstance(self.subject, ReplicatedIndexes)
        return self.subject

    @rule(worker=workers)
    def hand_over(self, worker: Worker) -> None:
        self._shared().hand_over(worker)

    @rule(worker=workers)
    def take_over(self, worker: Worker) -> None:
        self._shared().take_over(worker)

    @rule(segments=st.integers(1, 300))
    def tidy(self, segments: int) -> None:
        for replica in self._shared().replicas:
            replica.index.sweep(segments)

    @rule()
    def clean(self) -> None:
        self._shared().clean()

    @rule(number=st.integers(0, 2))
    def the_store_forgets(self, number: int) -> None:
        """All of it, or what one of several servers has."""
        process = self.processes[number % len(self.processes)]
        with process.client() as client:
            client.flushall()

    def settle(self) -> None:
        self._shared().settle()

    def ask(self, model: str, keys: array[int]) -> list[PrefixMatch]:
        return self._shared().ask(model, keys)

    def indexes(self) -> list[MemoryIndex]:
        return [replica.index for replica in self._shared().replicas]

    def teardown(self) -> None:
        if hasattr(self, "subject"):
            self._shared().close()


def test_the_embedded_index_answers_as_the_naive_one() -> None:
    run_state_machine_as_test(MemoryMachine, settings=_settings(60, 40))


@contextmanager
def store(kind: str) -> Iterator[tuple[str, tuple[StoreProcess, ...]]]:
    """URL and processes of `redis`, `valkey`, or a cluster of either."""
    program, _, cluster = kind.partition(" ")
    if server_program(program) is None:
        pytest.skip(f"there is no {program}-server on this machine")
    if cluster:
        with cluster_processes(program) as processes:
            yield processes.url, tuple(processes.nodes)
    else:
        with store_process(program) as process:
            yield process.url, (process,)


KINDS = ["redis", "valkey", "redis cluster", "valkey cluster"]


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_and_their_store_answer_as_the_naive_index(kind: str) -> None:
    with store(kind) as (url, processes):
        machine = type("Machine", (SharedMachine,), {"url": url, "processes": processes})
        run_state_machine_as_test(machine, settings=_settings(8, 25))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("event", ["remove", "store_known", "store"])
def test_rows_of_a_cleared_worker_are_written_over_without_a_trace(kind: str, event: str) -> None:
    """Else its bits would stay in blocks for ever, and count for whoever gets them next."""
    worker, place = WORKERS[0], Place("cpu", 1)
    with store(kind) as (url, processes):
        machine = type("Machine", (SharedMachine,), {"url": url, "processes": processes})()
        machine.begin(count_copies=True)
        try:
            machine.store(worker, place, run=(0, 4), salt=0)
            machine.everybody_agrees()
            machine.restart(worker)
            machine.everybody_agrees()
            for replica in machine._shared().replicas:  # nobody remembers what it was
                while replica.index.sweep(300):
                    pass
            if event == "store":  # the same engine hashes, of other blocks
                hashes, keys = machine._blocks(worker, (0, 4), 0)[0], CHAIN[4:]
                machine.subject.of(worker).store(
                    worker, place, array("Q", hashes), array("Q", keys)
                )
                machine.model.store(worker, place, hashes, keys)
            else:
                getattr(machine, event)(worker, place, run=(0, 4), salt=0)
            machine.everybody_agrees()
            machine.clean()
            machine.everybody_agrees()
            for other in WORKERS[1:]:  # get the bits that are free now
                machine.store(other, place, run=(6, 1), salt=1)
            machine.everybody_agrees()
        finally:
            machine.teardown()


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_replicas_and_their_store_answer_as_the_naive_index_in_long_runs(kind: str) -> None:
    with store(kind) as (url, processes):
        machine = type("Machine", (SharedMachine,), {"url": url, "processes": processes})
        run_state_machine_as_test(machine, settings=_settings(300, 40))


def _settings(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        suppress_health_check=list(HealthCheck),
    )
