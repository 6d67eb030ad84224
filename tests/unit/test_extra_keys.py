"""Extra keys of blocks, as vLLM's wire has them -> the extras of block keys.

Per block vLLM lists, in this order: the adapter's name, `[identifier, offset]` of each image that
overlaps the block, the salt (first block of a sequence only), digests of prompt embeddings.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.engines.wire import decoded_store, store

from kvevents.wire import ExtraStrings, parse_extra_keys

TOKENS = list(range(48))
ADAPTER = "sql-adapter"
DIGEST = bytes(range(32))


def parsed(
    *extra_keys: list[Any] | None, strings: ExtraStrings = ExtraStrings.AUTO, **fields: Any
) -> Any:
    """The extras of three blocks with these extra keys, as their event says them."""
    event = store([1, 2, 3], TOKENS, extra_keys=list(extra_keys) or None, **fields)
    return parse_extra_keys(decoded_store(event), strings)


def test_blocks_without_extra_keys_have_no_extras() -> None:
    assert parsed() == (None, None, 3, "")
    assert parsed(None, None, None) == (None, None, 3, "")


def test_the_adapter_s_name_is_no_extra() -> None:
    found = parsed([ADAPTER], [ADAPTER], [ADAPTER], lora_name=ADAPTER, lora_id=3)
    assert found.blocks == [(), (), ()]
    assert (found.understood, found.reason) == (3, "")


def test_an_image_is_an_extra_of_each_block_that_it_overlaps() -> None:
    found = parsed(None, [["image", 4]], [["image", -12]])
    assert found.blocks == [(), (("Hash", "image"),), (("Hash", "image"),)]
    assert found.offsets == [(), (4,), (-12,)]


def test_images_of_a_block_are_in_the_order_of_their_offsets() -> None:
    found = parsed([["late", 9], ["early", -3], ["middle", 2]], None, None)
    assert found.blocks[0] == (("Hash", "early"), ("Hash", "middle"), ("Hash", "late"))
    assert found.offsets[0] == (-3, 2, 9)


def test_the_salt_follows_the_images_of_the_first_block() -> None:
    found = parsed([ADAPTER, ["image", 4], "tenant-a"], [ADAPTER], [ADAPTER], lora_name=ADAPTER)
    assert found.blocks == [(("Hash", "image"), ("Salt", "tenant-a")), (), ()]
    assert found.offsets == [(4, None), (), ()]


def test_a_digest_of_embeddings_is_an_extra_in_hexadecimal() -> None:
    found = parsed(["tenant-a", DIGEST], [DIGEST], None)
    assert found.blocks[0] == (("Salt", "tenant-a"), ("Embeds", DIGEST.hex()))
    assert found.blocks[1] == (("Embeds", DIGEST.hex()),)


@pytest.mark.parametrize("unknown", [["tenant-b"], [7], [["image"]], [["image", "x"]], [None]])
def test_an_unknown_key_ends_the_blocks_that_are_understood(unknown: list[Any]) -> None:
    found = parsed([["image", 4]], unknown, [["image", -28]])
    assert found.blocks == [(("Hash", "image"),)]
    assert (found.understood, found.reason) == (1, "unknown_extra_key")


def test_a_string_after_a_parent_is_no_salt() -> None:
    found = parsed(["tenant-a"], None, None, parent_block_hash=9)
    assert (found.understood, found.reason) == (0, "unknown_extra_key")


def test_two_strings_in_a_first_block_are_not_both_the_salt() -> None:
    assert parsed(["tenant-a", "tenant-b"], None, None).reason == "unknown_extra_key"


def test_extra_keys_that_are_not_one_for_each_block_are_not_understood() -> None:
    found = parsed(["tenant-a"], None)
    assert (found.blocks, found.understood, found.reason) == (None, 0, "extra_keys_length")


def test_a_salt_of_the_event_belongs_to_the_first_block_of_a_sequence() -> None:
    """SGLang has the salt on the event instead of a block."""
    assert parsed(cache_salt="tenant-a").blocks == [(("Salt", "tenant-a"),), (), ()]
    assert parsed(cache_salt="tenant-a", parent_block_hash=9).blocks is None


def array(extra_keys: list[Any], *more: Any) -> list[Any]:
    """The event as vLLM up to 0.23 wrote it; with a group from 0.20 on."""
    return ["BlockStored", [1, 2, 3], None, TOKENS, 16, None, "GPU", None, extra_keys, *more]


def test_strings_of_arrays_without_a_group_are_images() -> None:
    """vLLM up to 0.17 named images by plain strings; since 0.20 a string is the salt."""
    keys = [["image"], ["image"], None]
    old, new = decoded_store(array(keys)), decoded_store(array([["salt"], None, None], 0))
    assert parse_extra_keys(old, ExtraStrings.AUTO).blocks == [
        (("Hash", "image"),),
        (("Hash", "image"),),
        (),
    ]
    assert parse_extra_keys(new, ExtraStrings.AUTO).blocks == [(("Salt", "salt"),), (), ()]


def test_a_setting_decides_what_strings_are_whatever_the_array_s_length() -> None:
    old, new = (
        decoded_store(array([["x"], None, None])),
        decoded_store(array([["x"], None, None], 0)),
    )
    assert parse_extra_keys(old, ExtraStrings.SALT).blocks == [(("Salt", "x"),), (), ()]
    assert parse_extra_keys(new, ExtraStrings.IMAGE).blocks == [(("Hash", "x"),), (), ()]
