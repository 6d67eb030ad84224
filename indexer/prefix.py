# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The longest-prefix walk: set numbers along a prompt -> how far each worker's prefix reaches.

Compiled by Cython where a C compiler is at hand; the same source runs as plain Python elsewhere.
"""

from __future__ import annotations

from array import array

import cython


def walk_prefix(
    numbers: cython.uint[::1],
    members: list[array[int]],
    workers: cython.int[::1],
    tiers: cython.uchar[::1],
    weights: cython.double[::1],
    worker_count: cython.Py_ssize_t,
) -> tuple[array[int], array[float], array[int]]:
    """Leading blocks and weighted score of every worker.

    numbers: per leading block the number of its holder set (see `BlockTable.sets_of`).
    members: set number -> members. workers: member -> worker, or -1 for one that does not count.
    tiers: member -> tier. weights: tier -> what a block in that tier adds to the score.

    Returns, by worker: blocks held in any tier without a hole, the sum of the best tier's weight
    over them, and (worker * len(weights) + tier) the leading blocks held in that very tier. The
    sum is of one product a weight, in the order of `weights`: the same to the last bit however
    workers, members and sets are numbered.
    """
    tier_count: cython.Py_ssize_t = len(weights)
    matched_out = array("I", bytes(4 * (worker_count + 1)))
    scores_out = array("d", bytes(8 * (worker_count + 1)))
    tiers_out = array("I", bytes(4 * (worker_count + 1) * tier_count))
    counts_out = array("I", bytes(4 * (worker_count + 1) * tier_count))
    best_out = array("B", bytes(worker_count + 1))
    same_out = array("B", range(tier_count))
    matched: cython.uint[::1] = matched_out
    scores: cython.double[::1] = scores_out
    by_tier: cython.uint[::1] = tiers_out
    counts: cython.uint[::1] = counts_out  # of blocks, by worker and the first tier of a weight
    best: cython.uchar[::1] = best_out  # of the worker's tiers in this run
    same: cython.uchar[::1] = same_out  # tier -> the first tier of the same weight
    current: cython.uint[::1]
    count: cython.Py_ssize_t = len(numbers)
    start: cython.Py_ssize_t = 0
    end: cython.Py_ssize_t
    i: cython.Py_ssize_t
    worker: cython.Py_ssize_t
    cell: cython.Py_ssize_t
    tier: cython.Py_ssize_t
    reached: cython.bint = True
    for i in range(tier_count):
        for tier in range(i):
            if weights[tier] == weights[i]:
                same[i] = tier
                break
    while reached and start < count:
        end = start + 1
        while end < count and numbers[end] == numbers[start]:
            end += 1
        reached = False
        current = members[numbers[start]]
        for i in range(len(current)):
            worker = workers[current[i]]
            if worker < 0:
                continue
            cell = worker * tier_count + tiers[current[i]]
            if by_tier[cell] == start:
                by_tier[cell] = end
            tier = same[tiers[current[i]]]
            if matched[worker] == start:
                matched[worker] = end
                best[worker] = tier
                counts[worker * tier_count + tier] += end - start
                reached = True
            elif matched[worker] == end and weights[tier] > weights[best[worker]]:
                counts[worker * tier_count + best[worker]] -= end - start
                counts[worker * tier_count + tier] += end - start
                best[worker] = tier
        start = end
    for worker in range(worker_count):
        if matched[worker] > 0:
            for i in range(tier_count):
                scores[worker] += counts[worker * tier_count + i] * weights[i]
    return matched_out, scores_out, tiers_out
