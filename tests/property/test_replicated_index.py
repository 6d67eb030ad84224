"""Copies of a shared index: what is noted in one and put into another makes them the same."""

from __future__ import annotations

from array import array

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from support.given_keys import GivenKeys

from indexer import Changes, EngineHash, Place, ReplicatedIndex, Worker

MODEL = "m"
WORKERS = [Worker("a:1", 0), Worker("a:1", 1), Worker("b:1", 0)]
PLACES = [Place("gpu", 0), Place("cpu", 0), Place("disk", 0), Place("gpu", 1)]
CHAIN = array("Q", [10_000 + number for number in range(12)])

workers = st.sampled_from(WORKERS)
places = st.sampled_from(PLACES)
runs = st.tuples(st.integers(0, 7), st.integers(1, 4), st.integers(0, 2))


def hashes_of(run: tuple[int, int, int]) -> array[int]:
    first, count, salt = run
    return array("Q", [block * 8 + salt + 1 for block in range(first, min(8, first + count))])


def keys_of(run: tuple[int, int, int]) -> array[int]:
    """The blocks of a run; the salt says how many of ours an engine block is."""
    first, count, salt = run
    span = salt + 1
    blocks = range(first, min(8, first + count))
    return array("Q", [CHAIN[(b + j) % len(CHAIN)] for b in blocks for j in range(span)])


class CopiesMachine(RuleBasedStateMachine):
    """Each worker's events are applied to one copy; the other is told, by and by."""

    @initialize(count_copies=st.booleans())
    def begin(self, count_copies: bool) -> None:
        self.ours = ReplicatedIndex(64 * 1024**2, count_copies=count_copies)
        self.theirs = ReplicatedIndex(64 * 1024**2, count_copies=count_copies)
        self.told: dict[Worker, list[Changes]] = {worker: [] for worker in WORKERS}
        for worker in WORKERS:
            self.ours.join(worker, MODEL)
            self.theirs.join(worker, MODEL)
            self.ours.track(worker)

    @rule(worker=workers, place=places, run=runs)
    def store(self, worker: Worker, place: Place, run: tuple[int, int, int]) -> None:
        self.ours.store(worker, place, hashes_of(run), keys_of(run))

    @rule(worker=workers, place=places, run=runs)
    def store_known(self, worker: Worker, place: Place, run: tuple[int, int, int]) -> None:
        self.ours.store_known(worker, place, hashes_of(run))

    @rule(worker=workers, place=places, run=runs)
    def remove(self, worker: Worker, place: Place, run: tuple[int, int, int]) -> None:
        self.ours.remove(worker, place, hashes_of(run))

    @rule(worker=workers, tier=st.sampled_from(["gpu", "cpu"]))
    def clear(self, worker: Worker, tier: str) -> None:
        self.ours.clear(worker, (tier,))

    @rule(worker=workers)
    def restart(self, worker: Worker) -> None:
        self.ours.restart(worker, ("gpu", "cpu"))

    @rule(segments=st.integers(1, 300))
    def tidy(self, segments: int) -> None:
        self.ours.sweep(segments)
        self.theirs.sweep(segments)

    @rule(worker=workers, again=st.integers(0, 3))
    def tell(self, worker: Worker, again: int) -> None:
        """The newest changes, after some that were told before."""
        changes = self.ours.drain_changes(worker)
        if changes is not None:
            self.told[worker].append(changes)
        news = self.told[worker][-again - (changes is not None) :] if again or changes else []
        for told in news:
            layout = self.ours.layout_of(worker)
            self.theirs.apply(worker, layout, told.holder_ids, told.names, told.counts, told.rows)
        if news:
            self._check_masks(worker, news[-1])
        self._agree(worker)

    @rule(worker=workers)
    def tell_everything(self, worker: Worker) -> None:
        """To a copy that knows nothing of the worker."""
        self.tell(worker, 0)
        self.theirs.leave(worker)
        self.theirs.join(worker, MODEL)
        self.ours.requeue_all(worker)
        self.tell(worker, 0)

    @rule(worker=workers)
    def hand_over(self, worker: Worker) -> None:
        """The events of all workers are applied to the other copy from now on."""
        for each in WORKERS:
            self.tell(each, 0)
            seats = self.ours.holder_ids_of(each)
            self.ours.untrack(each)
            self.theirs.track(each, seats.copy() if seats is not None else None)
            self.told[each].clear()
        self.ours, self.theirs = self.theirs, self.ours

    def _check_masks(self, worker: Worker, changes: Changes) -> None:
        """The blocks that changed are held where the masks say."""
        scored = {seat: bit for bit, seat in enumerate(changes.scored)}
        members = {
            place.tier: scored[seat]
            for place, seat in changes.holder_ids.ids.items()
            if place is not None and seat in scored and place.group == 0
        }
        for key, mask in zip(changes.keys, changes.masks, strict=True):
            found = self.theirs.match(MODEL, GivenKeys([key])).match_of(worker)
            assert found is not None
            assert found.by_tier == {t: 1 for t, bit in members.items() if mask >> bit & 1}

    def _agree(self, worker: Worker) -> None:
        for first in range(len(CHAIN)):
            prompt = GivenKeys(CHAIN[first:])
            mine = self.ours.match(MODEL, prompt).match_of(worker)
            assert mine == self.theirs.match(MODEL, prompt).match_of(worker)
        for run in ((0, 8, salt) for salt in range(3)):
            for name in hashes_of(run):
                meaning = self.ours.key_of(worker, EngineHash(name))
                assert meaning == self.theirs.key_of(worker, EngineHash(name))
        assert self._held(self.ours, worker) == self._held(self.theirs, worker)

    @staticmethod
    def _held(index: ReplicatedIndex, worker: Worker) -> dict[str, int]:
        of_worker = next(w for w in index.workers() if w.worker == worker)
        return {tier: count for tier, count in of_worker.by_tier.items() if count}


TestCopiesOfTheIndex = CopiesMachine.TestCase
TestCopiesOfTheIndex.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)
