"""Frames with many events or hashes: applied in slices, to the same outcome as at once."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from indexer import KeyScheme, MemoryIndex, PromptKeys, TrustState, Worker
from kvevents import BlockRemoved, BlockStored, FrameRouter, Source, dump_stream
from kvevents.applying.pieces import PIECE_KEYS, pieces_of
from kvevents.stream import Unfinished

if TYPE_CHECKING:
    from collections.abc import Iterator

POD = Worker("a:1", 0)
BOUND = Source("tcp://*:5557", bind=True)
BLOCKS = 20 * PIECE_KEYS
TOKENS = [token % 50_021 for token in range(16 * BLOCKS)]


class NoReplays:
    def start(self, stream: object, request: object) -> None:
        raise AssertionError(stream)

    def cancel(self, stream: object) -> None:
        pass


class RoutedPod:
    def __init__(self, replays: NoReplays | None = None) -> None:
        self.index = MemoryIndex(256 * 1024**2)
        self.scheme_of = cache(lambda model: KeyScheme(model, 16, ""))
        self.router = FrameRouter(self.index, self.scheme_of, replays or NoReplays())
        self.router.on_connected(BOUND, 1)
        self._sequence = 0

    def publish(self, *events: dict[str, Any]) -> None:
        payload = msgpack.packb([1.0, list(events), 0])
        frame = [b"kv@a:1@m", self._sequence.to_bytes(8, "big"), payload]
        self._sequence += 1
        self.router.route(BOUND, frame, 1)

    def skip(self) -> None:
        """Lose the next frame."""
        self._sequence += 1

    @property
    def state(self) -> tuple[TrustState, str]:
        return self.router.streams[POD].trust_status(time.monotonic())[:2]

    def matched(self, tokens: list[int]) -> int:
        prompt = PromptKeys(self.scheme_of("m"), array("Q", tokens), "", (), "")
        best = self.index.match("m", prompt).best_of("a:1")
        return 0 if best is None else best.matched_blocks

    def slices(self) -> int:
        """Do the rest one slice at a time; returns how many there were."""
        count = 0
        while self.router.unfinished:
            self.router.unfinished.step()
            count += 1
        return count

    def until_applying(self) -> None:
        """Decode what was published, and begin to apply it."""
        while POD not in self.router.streams:
            self.router.unfinished.step()


def stored(first: int, count: int, **fields: Any) -> dict[str, Any]:
    """Blocks `first` to `first + count`, whose hashes are their numbers plus one."""
    return {
        "type": "BlockStored",
        "block_hashes": [number + 1 for number in range(first, first + count)],
        "parent_block_hash": first or None,
        "token_ids": TOKENS[16 * first : 16 * (first + count)],
        "block_size": 16,
        "medium": "GPU",
        **fields,
    }


def test_a_long_event_is_applied_in_slices_and_is_not_exact_until_all_of_it_is() -> None:
    pod = RoutedPod()
    pod.publish(stored(0, BLOCKS))
    pod.until_applying()
    assert pod.state == (TrustState.RECOVERING, "applying")
    assert dump_stream(pod.router.streams[POD]) is None
    assert 0 < pod.matched(TOKENS) < BLOCKS
    assert pod.slices() >= 19
    assert pod.state == (TrustState.EXACT, "")
    assert pod.matched(TOKENS) == BLOCKS
    assert pod.router.streams[POD].applier.counts.events == Counter(BlockStored=1)
    assert not pod.router.unfinished


@pytest.mark.parametrize("siblings", [False, True])
def test_blocks_that_have_waited_for_one_block_are_applied_in_slices(*, siblings: bool) -> None:
    """A chain of blocks in reverse order, or thousands of children of one block."""
    pod = RoutedPod()
    for number in reversed(range(1, 2_000)):
        pod.publish(stored(number, 1, **({"parent_block_hash": 1} if siblings else {})))
    pod.slices()
    assert pod.matched(TOKENS) == 0
    pod.publish(stored(0, 1))
    assert pod.slices() >= 2_000 // 32
    assert pod.matched(TOKENS) == (2 if siblings else 2_000)
    assert not pod.router.streams[POD].applier.orphans


def test_a_block_that_was_announced_often_before_it_was_understood_is_stored_at_once() -> None:
    pod = RoutedPod()
    for _ in range(100):
        pod.publish({**stored(0, 1), "token_ids": [], "block_hashes": [1] * 300})
        pod.slices()
    pod.publish(stored(0, 1))
    assert pod.slices() <= 1
    assert pod.matched(TOKENS) == 1
    # Beyond 1,024 copies the others are refused, counted and shown.
    assert pod.router.streams[POD].applier.counts.skipped == {"unknown_hash": 30_000 - 1_024}
    assert pod.state[0] is TrustState.PARTIAL


class RequestedReplays(NoReplays):
    """Notes what is requested; nothing answers."""

    def __init__(self) -> None:
        self.requested: list[tuple[Any, Any]] = []

    def start(self, stream: object, request: object) -> None:
        self.requested.append((stream, request))


def test_frames_that_have_waited_are_applied_in_slices() -> None:
    replays = RequestedReplays()
    pod = RoutedPod(replays)
    pod.publish(stored(0, 1))
    pod.skip()
    for number in range(1, 3_000):
        pod.publish(stored(number, 1))
    [(stream, request)] = replays.requested
    stream.on_replay_finished(request, complete=False)
    assert pod.state == (TrustState.RECOVERING, "applying")
    assert pod.slices() >= 3_000 // 32
    assert pod.state == (TrustState.DEGRADED, "frames_lost")
    assert pod.matched(TOKENS[: 16 * 3_000]) == 3_000


async def test_slices_go_on_by_themselves_and_let_others_run() -> None:
    unfinished, done, turns = Unfinished(), asyncio.Event(), 0

    def slices() -> Iterator[bool]:
        for _ in range(100):
            end = time.perf_counter() + 0.0002  # at most three fit into one turn
            while time.perf_counter() < end:
                pass
            yield True
        done.set()

    def fails() -> bool:
        raise ValueError("one piece of work")

    steps = slices()
    running = asyncio.create_task(unfinished.run())
    unfinished.add(fails)
    unfinished.add(lambda: next(steps, False))
    while not done.is_set() or unfinished:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    running.cancel()


def test_many_short_events_are_applied_in_slices() -> None:
    pod = RoutedPod()
    pod.publish(*(stored(number, 1) for number in range(3000)))
    assert pod.slices() >= 5
    assert pod.matched(TOKENS[: 16 * 3000]) == 3000
    assert pod.state == (TrustState.EXACT, "")


def test_the_next_frame_comes_after_a_long_one() -> None:
    pod = RoutedPod()
    pod.publish(stored(0, 4 * PIECE_KEYS))
    pod.publish({"type": "BlockRemoved", "block_hashes": [1], "medium": "GPU"})
    pod.slices()
    assert pod.matched(TOKENS) == 0
    assert pod.state == (TrustState.EXACT, "")


def test_a_long_removal_removes_each_block_once() -> None:
    pod = RoutedPod()
    pod.publish(stored(0, BLOCKS))
    removed = list(range(BLOCKS // 2 + 1, BLOCKS + 1))
    pod.publish({"type": "BlockRemoved", "block_hashes": removed, "medium": "GPU"})
    pod.router.unfinished.finish()
    assert pod.matched(TOKENS) == BLOCKS // 2
    counts = pod.router.streams[POD].applier.counts
    assert counts.events == Counter(BlockStored=1, BlockRemoved=1)
    assert not counts.skipped


def test_a_stream_that_is_forgotten_leaves_a_long_frame_as_it_is() -> None:
    pod = RoutedPod()
    pod.publish(stored(0, BLOCKS))
    pod.until_applying()
    pod.router.forget_pod("a:1")
    pod.router.unfinished.finish()
    assert not list(pod.index.workers())


@pytest.mark.parametrize("count", [1, PIECE_KEYS, PIECE_KEYS + 1, 3 * PIECE_KEYS + 7])
def test_the_pieces_of_an_event_say_what_it_says(count: int) -> None:
    hashes = array("Q", range(1, count + 1))
    tokens = array("Q", range(16 * count))
    event = BlockStored(hashes, 77, tokens, 16, medium="GPU", cache_salt="s", size=1000)
    parent: int | None = 77
    seen_hashes, seen_tokens = array("Q"), array("Q")
    for piece in pieces_of(event):
        assert isinstance(piece, BlockStored)
        assert piece.parent_block_hash == parent
        assert len(piece.token_ids) == 16 * len(piece.block_hashes)
        assert piece.cache_salt == ("s" if not seen_hashes else None)
        seen_hashes += piece.block_hashes
        seen_tokens += piece.token_ids
        parent = piece.block_hashes[-1]
    assert (seen_hashes, seen_tokens) == (hashes, tokens)
    limits = list(range(count))
    removal = BlockRemoved(hashes, "CPU", 3, limits)
    pieces = [piece for piece in pieces_of(removal) if isinstance(piece, BlockRemoved)]
    assert [name for piece in pieces for name in piece.block_hashes] == list(hashes)
    assert [n for piece in pieces for n in piece.remaining_copy_counts or ()] == limits
    assert {(piece.medium, piece.group_idx) for piece in pieces} == {("CPU", 3)}


def test_an_event_that_cannot_be_divided_is_refused_if_it_is_very_long() -> None:
    pod = RoutedPod()
    extras = [[["image", 0]] if number == 0 else None for number in range(BLOCKS)]
    pod.publish(stored(0, BLOCKS, extra_keys=extras))
    pod.slices()
    assert pod.matched(TOKENS) == 0
    assert pod.state == (TrustState.PARTIAL, "event_too_long")
    assert pod.router.streams[POD].applier.counts.skipped == Counter(event_too_long=BLOCKS)


def test_hashes_of_wide_blocks_count_for_the_keys_that_they_stand_for() -> None:
    removal = BlockRemoved(array("Q", range(100)))
    pieces = [piece for piece in pieces_of(removal, span=64) if isinstance(piece, BlockRemoved)]
    assert [len(piece.block_hashes) for piece in pieces] == [8] * 12 + [4]
    pod = RoutedPod()
    wide = {"block_hashes": [1, 2], "token_ids": TOKENS[:2048], "block_size": 1024}
    pod.publish({**stored(0, 1), **wide})
    pod.slices()
    assert pod.matched(TOKENS[:2048]) == 128
    assert pod.router.streams[POD].applier.groups.span == 64
