"""Where a rank's prefix ends is what a naive model says, for any groups, tiers and holes."""

from __future__ import annotations

from array import array
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from indexer import CacheLayout, Group, Inspection, MemoryIndex, Place, Worker
from service.explaining.held import HeldBlocks, in_main_groups, leading

MODEL = "m"
KINDS = ("full_attention", "mla_attention", "sliding_window", "mamba", "unheard_of")
TIERS = ("gpu", "cpu", "disk")
BLOCKS = 12
KEYS = array("Q", [1000 + 7 * number for number in range(BLOCKS)])


class Fleet(NamedTuple):
    """Workers with groups, and the blocks that each holds in each place."""

    groups: dict[Worker, list[str]]
    held: dict[tuple[Worker, Place], set[int]]


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    groups, held = {}, {}
    for number in range(draw(st.integers(1, 3))):
        worker = Worker(f"pod{number}", 0)
        groups[worker] = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
        for group in range(len(groups[worker])):
            for tier in draw(st.sets(st.sampled_from(TIERS))):
                blocks = draw(st.sets(st.integers(0, BLOCKS - 1)))
                prefix = draw(st.integers(0, BLOCKS))
                held[worker, Place(tier, group)] = blocks | set(range(prefix))
    return Fleet(groups, held)


class NoTurns:
    async def pause(self) -> None:
        return


def index_of(fleet: Fleet) -> MemoryIndex:
    index = MemoryIndex(2**24)
    for worker, kinds in fleet.groups.items():
        index.join(worker, MODEL)
        window = {"sliding_window": 32}
        numbered = {n: Group(kind, window.get(kind, 0), 16) for n, kind in enumerate(kinds)}
        index.describe(worker, CacheLayout(16, numbered))
    for (worker, place), blocks in fleet.held.items():
        keys = array("Q", [KEYS[block] for block in sorted(blocks)])
        index.store(worker, place, keys, keys)
    return index


@given(fleets())
async def test_the_first_missing_block_and_the_groups_are_those_of_a_naive_model(
    fleet: Fleet,
) -> None:
    index = index_of(fleet)
    found = HeldBlocks(Inspection(index))
    await found.look_up(MODEL, KEYS, NoTurns())
    for worker, kinds in fleet.groups.items():
        layout = index.layout_of(worker)

        def holds(group: int, block: int, worker: Worker = worker) -> bool:
            return any(block in fleet.held.get((worker, Place(t, group)), ()) for t in TIERS)

        by_group = found.by_group(worker, layout)
        for group in range(len(kinds)):
            want = [holds(group, block) for block in range(BLOCKS)]
            assert by_group[group].tolist() == want
        main = [n for n, kind in enumerate(kinds) if kind in ("full_attention", "mla_attention")]
        in_main = [bool(main) and all(holds(g, block) for g in main) for block in range(BLOCKS)]
        held = in_main_groups(by_group, layout, BLOCKS)
        assert held.tolist() == in_main
        assert leading(held) == (in_main.index(False) if False in in_main else BLOCKS)
