"""Engine blocks smaller than ours, where room for what is remembered runs out."""

from __future__ import annotations

from array import array

from indexer import KeyScheme, Place
from indexer.folding import BlockFolding

GPU = Place("gpu")


def numbers(*values: int) -> array[int]:
    return array("Q", values)


def test_what_was_forgotten_can_be_learned_and_held_again() -> None:
    scheme = KeyScheme("m", 16)
    folding = BlockFolding(scheme, count_copies=True, most_parts=5)
    root, tokens = scheme.root(), numbers(*range(16))
    chain = numbers(1, 2, 3, 4)
    assert folding.learn(None, root, chain, tokens, None) == 4
    assert list(folding.store(GPU, chain)[0]) == [4]
    assert list(folding.remove(GPU, chain)[0]) == [4]
    for stranger in (9, 10, 11):
        assert folding.learn(None, root, numbers(stranger), numbers(stranger, 5, 5, 5), None) == 1
    assert len(folding) <= 5
    assert folding.learn(None, root, chain, tokens, None) == 4
    assert list(folding.store(GPU, chain)[0]) == [4]
    assert list(folding.remove(GPU, numbers(1))[0]) == [4]


def test_a_part_on_which_a_held_one_relies_is_not_forgotten() -> None:
    scheme = KeyScheme("m", 16)
    folding = BlockFolding(scheme, count_copies=True, most_parts=4)
    chain = numbers(1, 2, 3, 4)
    folding.learn(None, scheme.root(), chain, numbers(*range(16)), None)
    folding.store(GPU, chain)
    folding.remove(GPU, numbers(1))
    assert folding.learn(None, scheme.root(), numbers(9), numbers(5, 5, 5, 5), None) == 0
    assert list(folding.store(GPU, numbers(1))[0]) == [4]
