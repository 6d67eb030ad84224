"""The router and the streams of a pod, as frames arrive and time passes; without sockets."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

import msgpack

from indexer import KeyScheme, MemoryIndex, TrustState, Worker
from kvevents import EventPolicy, FrameRouter, Owner, Source, WorkerStream, dump_stream
from kvevents.sequencing import ReplayReason, ReplayRequest
from kvevents.transport.frame import Frame
from kvevents.wire import decode_batch

if TYPE_CHECKING:
    import pytest

POD = Worker("a:1", 0)
BOUND = Source("tcp://*:5557", bind=True)
REPLAYED = Source("tcp://a:5557", pod="a:1", model="m", replay="tcp://a:5558")


class SilentReplays:
    """A replay driver whose replay socket never answers."""

    def __init__(self) -> None:
        self.asked: list[ReplayRequest] = []

    def start(self, stream: WorkerStream, request: ReplayRequest) -> None:
        self.asked.append(request)

    def cancel(self, stream: WorkerStream) -> None:
        self.asked.clear()


def payload_of(sequence: int, parent: int | None = None) -> bytes:
    event = {
        "type": "BlockStored",
        "block_hashes": [sequence + 1],
        "parent_block_hash": parent,
        "token_ids": [sequence] * 16,
        "block_size": 16,
        "medium": "GPU",
    }
    payload: bytes = msgpack.packb([float(sequence), [event], 0])
    return payload


class UndecidedOwnership:
    """Every worker's frames wait, as if its owner were not known yet."""

    owns_everything = False

    def owner_of(self, worker: Worker, model: str, source: Source) -> Owner:
        return Owner.PENDING

    def on_left(self, worker: Worker) -> None:
        raise AssertionError(worker)

    def on_evicted(self, worker: Worker) -> None:
        raise AssertionError(worker)

    def on_source_removed(self, source: Source) -> tuple[Worker, ...]:
        raise AssertionError(source)


class RoutedPod:
    """A router over an index, to which one pod publishes."""

    def __init__(
        self, policy: EventPolicy | None = None, custody: UndecidedOwnership | None = None
    ) -> None:
        self.index = MemoryIndex(64 * 1024**2)
        self.replays = SilentReplays()
        scheme_of = cache(lambda model: KeyScheme(model, 16, ""))
        self.router = FrameRouter(self.index, scheme_of, self.replays, policy, custody)

    def publish(self, sequence: int, parent: int | None = None, source: Source = BOUND) -> None:
        """One block of 16 tokens, named by the frame's number plus one."""
        payload = payload_of(sequence, parent)
        self.router.route(source, [b"kv@a:1@m", sequence.to_bytes(8, "big"), payload], 1)

    def fail_replay(self) -> None:
        """The replay that was asked for last fails."""
        self.stream.on_replay_finished(self.replays.asked[-1], complete=False)

    @property
    def stream(self) -> WorkerStream:
        return self.router.streams[POD]

    @property
    def blocks(self) -> int:
        return sum(sum(worker.by_tier.values()) for worker in self.index.workers())

    def state(self, later: float = 0.0) -> tuple[TrustState, str]:
        return self.stream.trust_status(time.monotonic() + later)[:2]


def test_a_pod_is_stale_after_the_configured_silence() -> None:
    pod = RoutedPod(EventPolicy(stale_after=60.0))
    pod.publish(0)
    assert pod.state(later=59.0) == (TrustState.EXACT, "")
    assert pod.state(later=61.0) == (TrustState.STALE, "silent")
    pod.publish(1)
    assert pod.state() == (TrustState.EXACT, "")


def test_a_silent_pod_is_not_stale_while_its_connection_is_up() -> None:
    pod = RoutedPod(EventPolicy(stale_after=60.0))
    pod.router.on_connected(BOUND, 1)
    pod.publish(0)
    assert pod.state(later=3600.0) == (TrustState.EXACT, "")
    pod.router.on_disconnected(BOUND, 1)
    assert pod.state() == (TrustState.STALE, "disconnected")


def test_a_lost_connection_touches_the_streams_of_that_connection_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pod = RoutedPod()
    told: list[str] = []
    disconnected = WorkerStream.on_disconnected

    def counted(stream: WorkerStream, connection: int) -> None:
        told.append(stream.worker.pod)
        disconnected(stream, connection)

    monkeypatch.setattr(WorkerStream, "on_disconnected", counted)
    for number in range(1, 101):
        pod.router.on_connected(BOUND, number)
        frame = [f"kv@a:{number}@m".encode(), bytes(8), payload_of(0, None)]
        pod.router.route(BOUND, frame, number)
    for number in range(1, 101):
        pod.router.on_disconnected(BOUND, number)
    assert told == [f"a:{number}" for number in range(1, 101)]
    assert pod.state() == (TrustState.STALE, "disconnected")


def test_a_pod_that_is_silent_for_long_departs_with_its_blocks() -> None:
    pod = RoutedPod(EventPolicy(departed_after=300.0))
    pod.publish(0)
    pod.router.tick(time.monotonic() + 299.0)
    assert pod.blocks == 1
    pod.router.tick(time.monotonic() + 301.0)
    assert pod.router.departed == 1
    assert not pod.router.streams
    assert pod.blocks == 0
    pod.publish(1)
    assert pod.state()[0] is TrustState.PARTIAL  # as one that was joined late


def test_blocks_before_an_unfillable_gap_are_kept_and_the_pod_is_marked() -> None:
    pod = RoutedPod()
    pod.publish(0)
    pod.publish(2)
    assert pod.state()[0] is TrustState.RECOVERING  # it may only be late
    pod.fail_replay()
    for sequence in range(3, 200):
        pod.publish(sequence)
    assert pod.state()[0] is TrustState.DEGRADED
    assert pod.blocks == 199
    counts = pod.stream.sequencer.counts
    assert (counts.gaps, counts.missed) == (1, 1)


def test_blocks_before_an_unfillable_gap_are_forgotten_where_that_is_the_policy() -> None:
    pod = RoutedPod(EventPolicy(forget_on_doubt=True))
    pod.publish(0)
    pod.publish(2)
    pod.fail_replay()
    for sequence in range(3, 200):
        pod.publish(sequence)
    assert pod.state()[0] is TrustState.PARTIAL
    assert 0 < pod.blocks < 199


def test_live_frames_wait_for_a_replay_within_bounds_and_are_never_dropped() -> None:
    pod = RoutedPod(EventPolicy(waiting_bytes=20_000))
    pod.router.expected.add_source(REPLAYED)
    pod.router.on_connected(REPLAYED, 1)
    for sequence in range(5, 500):
        pod.publish(sequence, source=REPLAYED)
        assert pod.router.budget.used <= 20_000
    assert pod.replays.asked
    assert pod.stream.sequencer.counts.overflows >= 1
    assert pod.state()[0] is not TrustState.EXACT
    held = pod.stream.sequencer.buffered
    assert pod.blocks + held == 495  # what is not held was applied


def test_a_pod_whose_blocks_were_evicted_for_our_memory_is_partial() -> None:
    pod = RoutedPod()
    pod.index = MemoryIndex(1024**2)
    pod.router = FrameRouter(
        pod.index, cache(lambda model: KeyScheme(model, 16, "")), pod.replays, None
    )
    for sequence in range(60_000):
        pod.publish(sequence)
        if pod.state()[0] is not TrustState.EXACT:
            break
    assert pod.state() == (TrustState.PARTIAL, "evicted")
    clear = msgpack.packb([1.0, [{"type": "AllBlocksCleared"}], 0])
    pod.router.route(BOUND, [b"kv@a:1@m", (sequence + 1).to_bytes(8, "big"), clear], 1)
    assert pod.state() == (TrustState.EXACT, "")


def test_a_child_joins_the_index_when_its_parent_is_known() -> None:
    pod = RoutedPod()
    pod.publish(8, parent=8)
    assert pod.blocks == 0
    assert pod.stream.applier.orphans.blocks == 1
    event = {
        "type": "BlockStored",
        "block_hashes": [8],
        "parent_block_hash": None,
        "token_ids": [1] * 16,
        "block_size": 16,
        "medium": "GPU",
    }
    payload = msgpack.packb([9.0, [event], 0])
    pod.router.route(BOUND, [b"kv@a:1@m", (9).to_bytes(8, "big"), payload], 1)
    assert pod.blocks == 2
    assert not pod.stream.applier.orphans


def test_forgetting_a_pod_leaves_the_other_pods() -> None:
    pod = RoutedPod()
    pod.publish(0)
    payload = msgpack.packb([0.0, [], 0])
    pod.router.route(BOUND, [b"kv@b:1@m", bytes(8), payload], 2)
    assert pod.router.forget_pod("a:1")
    assert not pod.router.forget_pod("a:1")
    assert set(pod.router.streams) == {Worker("b:1", 0)}
    assert pod.index.pods_of("m") == ["b:1"]


def test_a_pod_taken_over_while_connected_is_polled_once() -> None:
    before = RoutedPod()
    before.router.expected.add_source(REPLAYED)
    before.publish(0, source=REPLAYED)
    dumped = dump_stream(before.stream)
    after = RoutedPod(custody=UndecidedOwnership())
    after.router.on_connected(REPLAYED, 1)
    after.publish(1, source=REPLAYED)  # waits until the pod is ours
    after.router.on_acquired(POD, "m", REPLAYED, dumped)
    (asked,) = after.replays.asked
    assert after.stream.silent_for(time.monotonic()) == 0
    after.stream.on_replayed_frame(asked, Frame(b"", 0, payload_of(0)), decode_batch(payload_of(0)))
    after.stream.on_replay_finished(asked, complete=True)
    after.publish(2, source=REPLAYED)
    assert after.stream.trust.state is TrustState.EXACT
    assert after.stream.sequencer.incarnation.last == 2
    assert after.replays.asked == [asked]


def test_a_medium_that_nobody_knows_is_the_workers_own_matter() -> None:
    pod = RoutedPod()
    for name in ("b:1", "c:1"):
        events = [{"type": "AllBlocksCleared"}]
        topic = f"kv@{name}@m".encode()
        frame = [topic, bytes(8), msgpack.packb([0.0, events, 0])]
        pod.router.route(BOUND, frame, connection=int(name == "c:1") + 2)
    pod.publish(0)
    stored = {
        "type": "BlockStored",
        "block_hashes": [7],
        "parent_block_hash": None,
        "token_ids": [7] * 16,
        "block_size": 16,
        "medium": "HOLOGRAM",
    }
    payload = msgpack.packb([1.0, [stored], 0])
    pod.router.route(BOUND, [b"kv@b:1@m", (1).to_bytes(8, "big"), payload], 2)
    now = time.monotonic()
    states = {
        worker.pod: stream.trust_status(now)[:2] for worker, stream in pod.router.streams.items()
    }
    assert states["a:1"] == states["c:1"] == (TrustState.EXACT, "")
    assert states["b:1"] == (TrustState.PARTIAL, "storage_from_before")


def test_the_last_frames_of_a_rival_that_has_gone_are_not_applied() -> None:
    pod = RoutedPod()
    for connection in (1, 2):
        pod.router.on_connected(BOUND, connection)
    pod.publish(0)
    pod.router.on_disconnected(BOUND, 2)
    cleared = msgpack.packb([1.0, [["AllBlocksCleared"]], 0])
    pod.router.route(BOUND, [b"kv@a:1@m", (1).to_bytes(8, "big"), cleared], 2)
    pod.router.route(BOUND, [b"kv@a:1@other", (1).to_bytes(8, "big"), cleared], 2)
    assert (pod.blocks, pod.state()) == (1, (TrustState.EXACT, ""))
    assert pod.stream.sequencer.counts.rivals == 2
    assert pod.stream.model == "m"


def test_a_heartbeat_costs_what_its_connection_has_and_no_more() -> None:
    pod = RoutedPod()
    for number in range(300):
        pod.router.on_connected(BOUND, number + 1)
        topic = f"kv@pod-{number}:1@m".encode()
        pod.router.route(BOUND, [topic, bytes(8), payload_of(0)], number + 1)
    told: list[str] = []
    for worker, stream in pod.router.streams.items():
        stream.on_heartbeat = lambda frame, pod=worker.pod: told.append(pod)  # type: ignore[method-assign, misc]
    pod.router.route(BOUND, [b"", (1).to_bytes(8, "big"), b""], 7)
    assert told == ["pod-6:1"]


def test_a_pod_that_delivers_too_little_is_doubted_until_it_is_learned_anew() -> None:
    pod = RoutedPod()
    pod.router.on_connected(REPLAYED, 1)
    for sequence in range(3):
        pod.publish(sequence, source=REPLAYED)
    assert pod.stream.trust_status(0.0).state is TrustState.EXACT
    pod.replays.asked.clear()
    pod.router.on_under_delivery(POD)
    assert pod.state() == (TrustState.RECOVERING, "resync")
    (request,) = pod.replays.asked
    assert (request.reason, request.start) == (ReplayReason.RESYNC, 0)
    pod.fail_replay()
    assert pod.stream.trust.reason == "under_delivers"
    pod.router.on_under_delivery(POD)
    request = pod.replays.asked[-1]
    for sequence in range(3):
        payload = payload_of(sequence)
        frame = Frame(b"kv@a:1@m", sequence, payload)
        pod.stream.on_replayed_frame(request, frame, decode_batch(payload))
    pod.stream.on_replay_finished(request, complete=True)
    assert pod.stream.trust_status(0.0).state is TrustState.EXACT


def test_a_pod_without_a_replay_socket_that_delivers_too_little_stays_degraded() -> None:
    pod = RoutedPod()
    pod.router.on_connected(BOUND, 1)
    pod.publish(0)
    pod.router.on_under_delivery(POD)
    assert pod.state() == (TrustState.DEGRADED, "under_delivers")
    assert pod.index.workers()[0].by_tier == {"gpu": 1}
    pod.router.on_under_delivery(Worker("nobody:1", 0))


def test_ranks_are_pods_with_ports_of_their_own_if_the_source_says_so() -> None:
    pod = RoutedPod()
    source = Source("tcp://*:5557", bind=True, rank_ports=True, replay="tcp://{host}:6000")
    for name, rank in (("a:1", 2), ("[::1]:8000", 1), ("no-port", 1)):
        payload = msgpack.packb([0.0, [], rank])
        pod.router.route(source, [f"kv@{name}@m".encode(), bytes(8), payload], 1)
    assert set(pod.router.streams) == {
        Worker("a:3", 2),
        Worker("[::1]:8001", 1),
        Worker("no-port", 1),
    }
    assert source.could_publish(Worker("a:3", 2), "m")
    named = Source("tcp://a:5557", pod="a:1", model="m", rank_ports=True)
    assert named.could_publish(Worker("a:3", 2), "m")
    assert not named.could_publish(Worker("a:3", 1), "m")
