"""A radix tree of prompts: which leading blocks of a prompt are those of a live decision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from array import array

    from indexer import Worker

    _Path = list[tuple[int, "_Node"]]


@dataclass(eq=False, slots=True)
class _Node:
    """A run of blocks that decisions have in common, and how many of each worker have it."""

    keys: array[int]
    children: dict[int, _Node] = field(default_factory=dict)
    """By their first keys."""
    counts: dict[Worker, int] = field(default_factory=dict)
    """Worker -> decisions that go through this node, or end with it."""

    def split(self, length: int) -> None:
        """Let the node end after `length` keys, and a child have the others."""
        child = _Node(self.keys[length:], self.children, dict(self.counts))
        self.keys, self.children = self.keys[:length], {child.keys[0]: child}


class PrefixTree:
    """The prompts of live decisions, by their block keys.

    A block key stands for all blocks before it, too. So two prompts that share a key share all
    keys up to it, and how much they share is found by bisection.
    """

    def __init__(self) -> None:
        self._root: dict[int, _Node] = {}

    def add(self, keys: array[int], worker: Worker) -> None:
        """Count a decision. Cost: O(nodes on its path), and the copy of the keys that are new."""
        children, at = self._root, 0
        while at < len(keys):
            node = children.get(keys[at])
            if node is None:
                node = children[keys[at]] = _Node(keys[at:])
            common = _common(node.keys, keys, at)
            if common < len(node.keys):
                node.split(common)
            node.counts[worker] = node.counts.get(worker, 0) + 1
            children, at = node.children, at + common

    def remove(self, keys: array[int], worker: Worker) -> None:
        """Count a decision no more, which was added."""
        children, at = self._root, 0
        while at < len(keys):
            node = children[keys[at]]
            if node.counts[worker] == 1:
                del node.counts[worker]
            else:
                node.counts[worker] -= 1
            if not node.counts:
                del children[keys[at]]
            children, at = node.children, at + len(node.keys)

    def match(self, keys: array[int]) -> dict[Worker, int]:
        """Return how many leading blocks each worker has in a decision, for those with any.

        Cost: O(nodes on the path + workers x log(nodes)).
        """
        path: _Path = []
        children, at = self._root, 0
        while at < len(keys) and (node := children.get(keys[at])) is not None:
            common = _common(node.keys, keys, at)
            at += common
            path.append((at, node))
            if common < len(node.keys):
                break
            children = node.children
        return {worker: _depth(path, worker) for worker in path[0][1].counts} if path else {}

    def __bool__(self) -> bool:
        return bool(self._root)


def _common(own: array[int], keys: array[int], at: int) -> int:
    """Return how many keys of a node are those from `at` on; the first one is."""
    low, high = 1, min(len(own), len(keys) - at)
    while low < high:
        middle = (low + high + 1) // 2
        if own[middle - 1] == keys[at + middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low


def _depth(path: _Path, worker: Worker) -> int:
    """Return the end of the last node that a decision of `worker`, which has the first, reaches."""
    low, high = 0, len(path) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if worker in path[middle][1].counts:
            low = middle
        else:
            high = middle - 1
    return path[low][0]
