"""Events of a form that was decided about before do what they would do if nothing was remembered.

Two workers apply the same batches: one remembers what was decided, the other one never does.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.applied_worker import AppliedWorker
from support.engines.wire import clear, decoded, remove, store

from kvevents.applying.familiar import FamiliarForms

FORMS: list[dict[str, Any]] = [
    {},
    {"medium": "CPU"},
    {"lora_name": "adapter", "lora_id": 1},
    {"lora_id": 1},
    {"group_idx": 0, "kv_cache_spec_kind": "full_attention"},
    {"group_idx": 1, "kv_cache_spec_kind": "sliding_window", "kv_cache_spec_sliding_window": 32},
    {"group_idx": 1, "kv_cache_spec_kind": "sliding_window", "kv_cache_spec_sliding_window": 64},
    {"group_idx": 2, "kv_cache_spec_kind": "cross_attention"},
    {"group_idx": 3, "kv_cache_spec_kind": "mamba"},
    {"group_idx": 4, "kv_cache_spec_kind": "full_attention"},
    {"group_idx": 4, "kv_cache_spec_kind": "cross_attention"},
    {"cache_salt": "salt"},
    {"extra_keys": [["image", 3], None]},
    {"origin": "REUSED"},
    {"lookahead_token_ids": [1]},
]


class Forgetful(FamiliarForms):
    """Remembers nothing."""

    def find(self, event: Any) -> None:
        return None


def state_of(worker: AppliedWorker) -> list[Any]:
    """All that the events have led to."""
    counts, groups = worker.applier.counts, worker.applier.groups
    waiting = worker.applier.orphans._budget.used
    dump = list(worker.index.dump())
    return [dict(counts.events), dict(counts.skipped), waiting, worker.state, groups.layout, dump]


def random_event(source: random.Random, sizes: tuple[int, ...]) -> Any:
    choice = source.random()
    hashes = [source.randrange(1, 60) for _ in range(2)]
    form = source.choice(FORMS)
    if choice < 0.1:
        medium = {"medium": form.get("medium", "GPU"), "group_idx": form.get("group_idx", 0)}
        return remove(hashes, **medium)
    if choice < 0.13:
        return clear()
    size = source.choice(sizes)
    blocks = source.choice((1, 2, 2, 2))
    tokens = [source.randrange(6) for _ in range(blocks)]
    parent = source.choice((None, None, source.randrange(1, 60)))
    return store(
        hashes,
        [token for token in tokens for _ in range(size)],
        block_size=size,
        parent_block_hash=parent,
        **form,
    )


@pytest.mark.parametrize("seed", range(30))
def test_to_remember_decisions_changes_nothing_but_the_time_that_it_takes(seed: int) -> None:
    source = random.Random(seed)
    sizes = (16, 16, 16, 32) if seed % 4 == 0 else (16,)
    remembering, forgetful = AppliedWorker(), AppliedWorker()
    forgetful.applier._familiar = Forgetful(forgetful.applier._writer, forgetful.applier.groups)
    for number in range(80):
        events = [random_event(source, sizes) for _ in range(source.choice((1, 1, 3)))]
        for worker in (remembering, forgetful):
            worker.apply(*events)
            if number == 30:
                worker.follow(worker.applier.on_engine_restarted())
        assert state_of(remembering) == state_of(forgetful), events


def test_an_event_of_a_known_form_is_found_until_the_groups_change() -> None:
    worker = AppliedWorker()
    event = decoded(store([1], [1] * 16)).events[0]
    assert worker.applier._familiar.find(event) is None
    worker.apply(store([2], [2] * 16))
    assert worker.applier._familiar.find(event) is not None
    worker.apply(store([3], [1] * 16, group_idx=1, kv_cache_spec_kind="sliding_window"))
    assert worker.applier._familiar.find(event) is None
