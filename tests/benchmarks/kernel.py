"""Keys, look-ups, clearing and memory, in process."""

from __future__ import annotations

import ctypes
import random
import resource
import shutil
import subprocess
import tempfile
import time
from array import array
from pathlib import Path

import cbor2
from benchmarks.rows import median_us, row
from support.given_keys import GivenKeys

from indexer import CacheLayout, Group, KeyScheme, MemoryIndex, Place, PromptKeys, Worker
from indexer.kernel.keys import block_keys

MODEL = "bench"
GPU = Place("gpu")
PROMPTS = 16
FNV_LOOP = """
#include <stddef.h>
#include <stdint.h>
uint64_t fnv(const uint8_t *bytes, size_t count, uint64_t h) {
    for (size_t i = 0; i < count; i++) h = (h ^ bytes[i]) * 0x100000001b3ULL;
    return h;
}
"""


def prompts(tokens: int, seed: int = 1, count: int = PROMPTS) -> list[array[int]]:
    source = random.Random(seed)
    return [array("Q", [source.randrange(128_000) for _ in range(tokens)]) for _ in range(count)]


def random_numbers(count: int, seed: int) -> array[int]:
    return array("Q", random.Random(seed).randbytes(8 * count))


def keys_row() -> None:
    scheme = KeyScheme(MODEL, 16)
    texts = prompts(8192)
    ours = median_us(lambda: [scheme.keys(scheme.root(), t) for t in texts], PROMPTS)
    compiler = shutil.which("cc") or shutil.which("gcc")
    name, target = "block keys, 8,192 ids, block 16", "<= 1.15"
    if compiler is None:
        row(name, f"{ours:.1f} us", "no C compiler to compare with", None, target)
        return
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "fnv.c").write_text(FNV_LOOP)
        library = f"{directory}/fnv.so"
        subprocess.run(
            [compiler, "-O3", "-shared", "-fPIC", "-o", library, f"{directory}/fnv.c"], check=True
        )
        loop = ctypes.CDLL(library).fnv
    loop.argtypes, loop.restype = (
        [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64],
        ctypes.c_uint64,
    )
    streams = [_hashed_bytes(scheme, t) for t in texts]
    floor = median_us(lambda: [loop(s, len(s), 1) for s in streams], PROMPTS)
    row(
        name,
        f"{ours:.1f} us",
        f"C xor-multiply loop, same bytes: {floor:.1f} us",
        ours / floor,
        target,
    )


def _hashed_bytes(scheme: KeyScheme, tokens: array[int]) -> bytes:
    parent, stream = int(scheme.root()), b""
    for index, key in enumerate(block_keys(parent, tokens, 16)):
        chunk = list(tokens[index * 16 : index * 16 + 16])
        stream += cbor2.dumps([parent, chunk, None], canonical=True)
        parent = key
    return stream


def filled(pods: int, keys: list[array[int]], others: int) -> MemoryIndex:
    """An index in which every pod holds all `keys`, and the first `others` blocks more."""
    index = MemoryIndex(16 * 1024**3)
    for number in range(pods):
        worker = Worker(f"10.0.0.{number}:8000", 0)
        index.join(worker, MODEL)
        for run in keys:
            index.store(worker, GPU, run, run)
    first = Worker("10.0.0.0:8000", 0)
    more = random_numbers(others, 5)
    for start in range(0, others, 64):
        index.store(first, GPU, more[start : start + 64], more[start : start + 64])
    return index


def naive_walk(holders: dict[int, set[str]], keys: array[int]) -> dict[str, int]:
    """A dictionary of sets, walked block by block."""
    alive = set(holders.get(keys[0], ()))
    counts = dict.fromkeys(alive, 0)
    for key in keys:
        alive &= holders.get(key, set())
        if not alive:
            break
        for pod in alive:
            counts[pod] += 1
    return counts


def lookup_rows(others: int) -> None:
    for pods, blocks, target in ((8, 512, 20), (64, 512, 25), (96, 3750, 200)):
        keys = [random_numbers(blocks, seed) for seed in range(PROMPTS)]
        index = filled(pods, keys, others)
        asked = [GivenKeys(k) for k in keys]
        ours = median_us(lambda: [index.match(MODEL, k) for k in asked], PROMPTS)  # noqa: B023
        names = {f"10.0.0.{number}:8000" for number in range(pods)}
        holders = {key: set(names) for run in keys for key in run}
        naive = median_us(lambda: [naive_walk(holders, k) for k in keys], PROMPTS)  # noqa: B023
        row(
            f"lookup + score, {blocks} keys, {pods} pods, {others:,} others",
            f"{ours:.1f} us",
            f"dict of sets in Python: {naive:,.0f} us",
            ours / naive,
            f"<= {target} us",
        )


HYBRID = {
    0: Group("sliding_window", 129, 16),
    1: Group("full_attention", 0, 16),
    2: Group("mamba", 0, 16),
}


def hybrid_rows() -> None:
    """Three groups a pod, of which two hold a part of each prompt, against one group's lookup."""
    plain: list[MemoryIndex] = []
    hybrid: list[MemoryIndex] = []
    keys = [random_numbers(512, seed) for seed in range(PROMPTS)]
    asked = [GivenKeys(k) for k in keys]
    for groups, made in ({}, plain), (HYBRID, hybrid):
        index = MemoryIndex(16 * 1024**3)
        made.append(index)
        for number in range(64):
            worker = Worker(f"10.0.0.{number}:8000", 0)
            index.join(worker, MODEL)
            index.describe(worker, CacheLayout(16, groups))
            for run in keys:
                index.store(worker, Place("gpu", 1 if groups else 0), run, run)
                if groups:  # tails of turns, and a state at the end of each
                    for end in range(64, 513, 64):
                        index.store_known(worker, Place("gpu", 0), run[end - 8 : end])
                        index.store_known(worker, Place("gpu", 2), run[end - 1 : end])
    ours, one = (
        median_us(lambda: [index.match(MODEL, k) for k in asked], PROMPTS)  # noqa: B023
        for (index,) in (hybrid, plain)
    )
    row(
        "hybrid: lookup + reuse, 512 keys, 3 groups, 64 pods",
        f"{ours:.1f} us",
        f"one group: {one:.1f} us",
        ours / one,
        "<= 3",
    )
    (index,), (base,) = hybrid, plain
    pairs = 64 * PROMPTS * 512
    row(
        "hybrid: bytes per (block, pod) of the main group",
        f"{index.table.bytes_used / pairs:.1f}",
        f"one group: {base.table.bytes_used / pairs:.1f}",
        index.table.bytes_used / base.table.bytes_used,
        "",
    )


def in_process_row() -> None:
    scheme, texts = KeyScheme(MODEL, 16), prompts(8192)
    keys = [scheme.keys(scheme.root(), t) for t in texts]
    index = filled(64, keys, 1_000_000)
    whole = median_us(lambda: [index.match(MODEL, PromptKeys(scheme, t)) for t in texts], PROMPTS)
    alone = median_us(lambda: [scheme.keys(scheme.root(), t) for t in texts], PROMPTS)
    row(
        "tokens to scores, 8,192 ids, 64 pods, full hit",
        f"{whole:.1f} us",
        f"the keys alone: {alone:.1f} us",
        whole / alone,
        "<= 90 us",
    )


def clear_row() -> None:
    timings = {}
    for blocks in (20_000, 2_000_000):
        index = filled(8, [random_numbers(64, 1)], blocks)
        worker = Worker("10.0.0.0:8000", 0)
        start = time.perf_counter()
        index.clear(worker, ("gpu",))
        timings[blocks] = (time.perf_counter() - start) * 1e6
        slices = []
        while True:
            start = time.perf_counter()
            more = index.sweep()
            slices.append(time.perf_counter() - start)
            if not more:
                break
    row(
        "clear of a pod, index of 2,000,000 blocks",
        f"{timings[2_000_000]:.0f} us",
        f"with 20,000 blocks: {timings[20_000]:.0f} us",
        timings[2_000_000] / timings[20_000],
        "< 1 ms, whatever the number",
    )
    row("  longest slice of tidying up afterwards", f"{max(slices) * 1e3:.1f} ms", "", None, "")


def memory_rows() -> None:
    for same, name in ((True, "same hashes on all pods"), (False, "hashes of its own on each pod")):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        index, each = MemoryIndex(32 * 1024**3), 40_000
        shared = random_numbers(each // 2, 1)
        for number in range(64):
            worker = Worker(f"10.0.0.{number}:8000", 0)
            index.join(worker, MODEL)
            for part, keys in ((0, shared), (1, random_numbers(each // 2, 100 + number))):
                hashes = keys if same else random_numbers(each // 2, 1000 + 2 * number + part)
                for start in range(0, len(keys), 50):
                    index.store(worker, GPU, hashes[start : start + 50], keys[start : start + 50])
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        pairs = 64 * each
        row(
            f"bytes per (block, pod), {name}",
            f"{index.table.bytes_used / pairs:.1f}",
            f"by growth of the process: {grown * 1024 / pairs:.1f}",
            None,
            "<= 32",
        )


def scale_rows(most: int) -> None:
    keys = [random_numbers(512, seed) for seed in range(PROMPTS)]
    asked = [GivenKeys(k) for k in keys]
    base = None
    for others in [size for size in (10_000, 100_000, 1_000_000, 10_000_000) if size <= most]:
        index = filled(8, keys, others)
        ours = median_us(lambda: [index.match(MODEL, k) for k in asked], PROMPTS)  # noqa: B023
        base = base or ours
        row(
            f"scale: 512 keys, 8 pods, {others:,} blocks",
            f"{ours:.1f} us",
            f"smallest: {base:.1f} us",
            ours / base,
            "flat",
        )
        del index
    base = None
    for pods in (1, 8, 64, 512):
        index = filled(pods, keys, 100_000)
        ours = median_us(lambda: [index.match(MODEL, k) for k in asked], PROMPTS)  # noqa: B023
        base = base or ours
        row(
            f"scale: 512 keys, {pods} pods",
            f"{ours:.1f} us",
            f"one pod: {base:.1f} us",
            ours / base,
            "",
        )
