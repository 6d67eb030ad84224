"""What a worker's sequences were seen to begin with, in bounded memory."""

from __future__ import annotations

from typing import Any

from support.applied_worker import AppliedWorker

TOKENS = list(range(100, 132))


def stored(first: int, tokens: list[int] = TOKENS, **fields: Any) -> dict[str, Any]:
    return {
        "type": "BlockStored",
        "block_hashes": [first, first + 1],
        "parent_block_hash": None,
        "token_ids": tokens,
        "block_size": 16,
        "medium": "GPU",
        **fields,
    }


def test_adapters_salts_and_first_tokens_of_sequences_are_remembered() -> None:
    worker = AppliedWorker()
    worker.apply(stored(1), stored(11, lora_name="sql"))
    worker.apply(stored(21, extra_keys=[["salt"], None]), stored(31, [7, *TOKENS[1:]]))
    worker.apply(stored(41, parent_block_hash=2, lora_name="child"))
    roots = worker.applier.roots
    assert (roots.adapters, roots.salts, roots.first_tokens) == ({"sql"}, {"salt"}, {100, 7})


def test_an_adapter_among_the_extra_keys_is_no_salt() -> None:
    worker = AppliedWorker()
    worker.apply(stored(1, lora_name="sql", extra_keys=[["sql", "salt"], ["sql"]]))
    assert worker.applier.roots.salts == {"salt"}


def test_a_stranger_cannot_make_it_remember_without_end() -> None:
    worker = AppliedWorker()
    for number in range(200):
        extra = [[f"salt{number}"], None]
        tokens = [number, *TOKENS[1:]]
        worker.apply(stored(10 * number, tokens, lora_name=f"a{number}", extra_keys=extra))
    worker.apply(stored(5000, lora_name="x" * 10_000))
    roots = worker.applier.roots
    assert (len(roots.adapters), len(roots.salts), len(roots.first_tokens)) == (64, 64, 16)
