"""Generated prompts, and engines that have served them."""

from __future__ import annotations

import random
from collections.abc import Callable

from support.engines.simulated import Prompt, SimulatedEngine


def related_prompt(source: random.Random, prompts: list[Prompt], block_size: int) -> Prompt:
    """A short prompt, which often begins as one of `prompts` does."""
    start: tuple[int, ...] = ()
    if prompts and source.random() < 0.7:
        start = source.choice(prompts).tokens
        start = start[: source.randrange(len(start) + 1)]
    length = source.randrange(block_size, block_size * 6)
    tokens = (*start, *(source.randrange(1000) for _ in range(length)))
    return Prompt(tokens[: block_size * 16])


def served_workload(
    seed: int,
    block_size: int,
    scale: int,
    pods: int,
    requests: int,
    images: bool = True,
    now: Callable[[], float] = lambda: 1.0,
) -> tuple[list[SimulatedEngine], list[Prompt]]:
    """Engines that have served a generated workload, and prompts to ask about.

    Args:
        seed: of all that is random; the same seed generates the same workload.
        block_size: tokens of an engine block.
        scale: engine blocks in a block of ours; prompts and caches grow with it.
        pods: how many engines.
        requests: how many prompts are served.
        images: whether some prompts hold images.
        now: the clock of the engines, in seconds since the epoch.
    """
    source = random.Random(seed)
    engines = [
        SimulatedEngine(
            f"10.0.0.{number}:8000",
            "sim/model",
            block_size,
            # An eviction costs a prompt one of our blocks, however small the engine's are.
            capacity=(60 if scale == 1 else 180) * scale,
            random=random.Random(source.random()),
            bytes_hashes=number % 3 == 1,
            arrays=number % 2 == 1,
            now=now,
        )
        for number in range(pods)
    ]
    prompts: list[Prompt] = []
    size = block_size * scale
    gallery = [
        (name * 8, size * 2 + source.randrange(90), source.randrange(1, 40)) for name in "abc"
    ]
    systems = [_tokens(source, size * 5 + 3) for _ in range(3)]
    for _ in range(requests):
        tokens = source.choice(systems)
        if prompts and source.random() < 0.4:
            tokens = source.choice(prompts).tokens
        tokens = (*tokens, *_tokens(source, source.randrange(0, size * 6)))
        # An image has one place, as if the tokens there stood for it.
        shown = tuple(source.sample(gallery, source.choice([0, 0, 1, 2]))) if images else ()
        prompt = Prompt(
            tokens,
            source.choice([None, None, "adapter-1", "adapter-2"]),
            source.choice([None, None, None, "tenant-a", "tenant-b"]),
            _within(len(tokens), shown),
        )
        prompts.append(prompt)
        engine = source.choice(engines)
        engine.serve(prompt)
        if source.random() < 0.02:
            engine.reset()
    strangers = [Prompt(_tokens(source, block_size * 4))]
    shorter = [Prompt(p.tokens[: len(p.tokens) // 2], p.lora_name) for p in prompts[::5]]
    return engines, [*prompts, *shorter, *strangers]


def _within(
    tokens: int, images: tuple[tuple[str, int, int], ...]
) -> tuple[tuple[str, int, int], ...]:
    """The images that lie in a prompt of so many tokens, without those that overlap others."""
    placed: list[tuple[str, int, int]] = []
    end = 0
    for image, offset, length in sorted(images, key=lambda image: image[1]):
        if end <= offset and offset + length <= tokens:
            placed.append((image, offset, length))
            end = offset + length
    return tuple(placed)


def _tokens(source: random.Random, count: int) -> tuple[int, ...]:
    return tuple(
        source.choice([source.randrange(30), source.randrange(150_000)]) for _ in range(count)
    )
