"""What each event of a worker does to the index: real index, real trust, events off the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.applied_worker import SIZE, AppliedWorker
from support.engines.wire import clear, remove, store

from indexer import TrustState
from kvevents.trust import JoinedLate

if TYPE_CHECKING:
    pass

A, B, C, D = ([number] * SIZE for number in (1, 2, 3, 4))


@pytest.fixture
def worker() -> AppliedWorker:
    return AppliedWorker()


def test_stored_blocks_match_their_tokens(worker: AppliedWorker) -> None:
    worker.apply(store([1, 2], A + B))
    assert worker.matched(A, B, C) == {"gpu": 2}
    assert worker.matched(B, A) == {}


def test_blocks_follow_the_parent_that_their_event_names(worker: AppliedWorker) -> None:
    worker.apply(store([1], A), store([2], B, parent_block_hash=1))
    assert worker.matched(A, B) == {"gpu": 2}
    assert worker.matched(B) == {}


def test_a_removal_takes_one_copy(worker: AppliedWorker) -> None:
    """vLLM stores a recomputed block a second time, and removes each copy on its own."""
    worker.apply(store([1], A), store([1], A))
    worker.apply(remove([1]))
    assert worker.matched(A) == {"gpu": 1}
    worker.apply(remove([1]))
    assert worker.matched(A) == {}
    assert worker.state[0] is TrustState.EXACT


def test_a_removal_takes_all_copies_where_copies_are_not_counted() -> None:
    worker = AppliedWorker(count_copies=False)
    worker.apply(store([1], A), store([1], A), remove([1]))
    assert worker.matched(A) == {}


def test_a_removal_of_a_block_that_is_not_held_contradicts_an_exact_worker(
    worker: AppliedWorker,
) -> None:
    worker.apply(store([1], A), remove([9]))
    assert worker.skipped == {"not_held": 1, "contradictions": 1}
    assert worker.state == (TrustState.DEGRADED, "contradiction")
    assert worker.matched(A) == {"gpu": 1}


def test_an_event_without_tokens_holds_the_blocks_that_its_hashes_mean(
    worker: AppliedWorker,
) -> None:
    """vLLM's CPU tier announces blocks by their hashes alone, in any order."""
    worker.apply(store([1, 2], A + B))
    worker.apply(*(store([name], [], block_size=0, medium="CPU") for name in (2, 1)))
    worker.apply(remove([1]), remove([2]))
    assert worker.matched(A, B) == {"cpu": 2}


def test_a_hash_without_a_meaning_waits_for_it(worker: AppliedWorker) -> None:
    worker.apply(store([1], [], block_size=0, medium="CPU"))
    assert worker.matched(A) == {}
    worker.apply(store([1], A))
    assert worker.matched(A) == {"gpu": 1, "cpu": 1}


def test_an_orphan_joins_the_index_with_its_parent(worker: AppliedWorker) -> None:
    worker.apply(store([3], C, parent_block_hash=2))
    worker.apply(store([2], B, parent_block_hash=1))
    assert worker.matched(A, B, C) == {}
    assert worker.state[0] is not TrustState.EXACT
    worker.apply(store([1], A))
    assert worker.matched(A, B, C) == {"gpu": 3}


def test_a_removed_orphan_does_not_join_the_index(worker: AppliedWorker) -> None:
    worker.apply(store([2], B, parent_block_hash=1), remove([2]))
    worker.apply(store([1], A))
    assert worker.matched(A, B) == {"gpu": 1}


def test_an_orphan_without_room_is_counted_and_leaves_the_worker_partial() -> None:
    worker = AppliedWorker(orphan_bytes=1)
    worker.follow([JoinedLate("joined_late", recoverable=True)])
    worker.apply(store([2], B, parent_block_hash=1))
    assert worker.skipped == {"unknown_parent": 1}
    assert worker.state[0] is TrustState.PARTIAL


def test_a_reset_clears_the_gpu_and_leaves_the_cpu_tier(worker: AppliedWorker) -> None:
    worker.apply(store([1], A), store([1], [], block_size=0, medium="CPU"))
    worker.apply(clear())
    assert worker.matched(A) == {"cpu": 1}


def test_a_restart_drops_what_the_process_held_and_what_its_hashes_meant(
    worker: AppliedWorker,
) -> None:
    worker.apply(store([1], A), store([1], [], block_size=0, medium="CPU"))
    worker.follow(worker.applier.on_engine_restarted())
    assert worker.matched(A) == {}
    worker.apply(store([1], B))
    assert worker.matched(B) == {"gpu": 1}


def test_blocks_of_an_adapter_match_that_adapter_alone(worker: AppliedWorker) -> None:
    worker.apply(store([1], A, lora_id=3, lora_name="sql", extra_keys=[["sql"]]))
    assert worker.matched(A) == {}
    assert worker.matched(A, adapter="sql") == {"gpu": 1}


def test_blocks_of_an_adapter_without_a_name_are_counted_and_not_indexed(
    worker: AppliedWorker,
) -> None:
    worker.apply(store([1, 2], A + B, lora_id=3))
    assert worker.matched(A) == {}
    assert worker.skipped == {"unnamed_adapter": 2}
    assert worker.state == (TrustState.PARTIAL, "unnamed_adapter")


def test_blocks_after_an_unknown_extra_key_are_counted_and_not_indexed(
    worker: AppliedWorker,
) -> None:
    worker.apply(store([1, 2, 3], A + B + C, extra_keys=[None, [7], None]))
    assert worker.matched(A, B, C) == {"gpu": 1}
    assert worker.skipped == {"unknown_extra_key": 2}


def test_a_group_that_names_some_blocks_learns_them_from_the_main_group(
    worker: AppliedWorker,
) -> None:
    """A sliding window keeps the last blocks only; the main group's event comes after it."""
    window = {"kv_cache_spec_kind": "sliding_window", "kv_cache_spec_sliding_window": SIZE + 1}
    worker.apply(
        store([4], A + B + C + D, block_size=SIZE, group_idx=0, **window),
        store([1, 2, 3, 4], A + B + C + D, group_idx=1, kv_cache_spec_kind="full_attention"),
    )
    assert worker.matched(A, B, C, D) == {"gpu": 4}
    assert worker.skipped == {}
    assert worker.state[0] is TrustState.EXACT


def test_every_applied_event_is_counted_by_its_type(worker: AppliedWorker) -> None:
    worker.apply(store([1], A), store([2], B), remove([1]), clear())
    assert worker.applier.counts.events == {
        "BlockStored": 2,
        "BlockRemoved": 1,
        "AllBlocksCleared": 1,
    }


def test_a_hash_with_too_many_contents_makes_its_worker_partial(worker: AppliedWorker) -> None:
    worker.apply(*(store([7], [number] * SIZE) for number in range(8)))
    assert worker.state == (TrustState.EXACT, "")
    worker.apply(*(store([7], [number] * SIZE) for number in range(100, 120)))
    assert worker.skipped == {"too_many_meanings": 20}
    assert worker.state == (TrustState.PARTIAL, "too_many_meanings")
    assert worker.matched([3] * SIZE) == {"gpu": 1}
    assert worker.matched([103] * SIZE) == {}
