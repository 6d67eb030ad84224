"""Block keys are those of the original, and of CBOR and FNV as others implement them."""

from __future__ import annotations

import json
import random
from array import array
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paths import DATA

from indexer import BlockKey, KeyScheme, MultimodalItem, PromptKeys, block_extras
from indexer.extras import encode
from indexer.kernel.keys import FNV_OFFSET_BASIS, block_keys, fnv1a_64

GOLDEN = json.loads((DATA / "block_keys.json").read_text())


def reference_hash(data: bytes, h: int = 0xCBF29CE484222325) -> int:
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    return h


def reference_keys(
    parent: int, tokens: list[int], size: int, extras: dict[int, list[dict[str, str]]]
) -> list[int]:
    """Keys by cbor2 alone."""
    keys = []
    for index in range(len(tokens) // size):
        chunk = tokens[index * size : (index + 1) * size]
        payload = cbor2.dumps([parent, chunk, extras.get(index)], canonical=True)
        parent = reference_hash(payload)
        keys.append(parent)
    return keys


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_block_keys_are_those_of_the_original(case: dict[str, Any]) -> None:
    scheme = KeyScheme(case["model_name"], case["block_size"], case["hash_seed"])
    assert fnv1a_64(case["hash_seed"].encode(), FNV_OFFSET_BASIS) == int(case["seed_hash"])
    assert scheme.root() == int(case["model_init_hash"])
    extras = case["extra_features"]
    if extras is not None:
        extras = [
            None
            if block is None or block["mm_hashes"] is None
            else tuple(("Hash", image) for image in block["mm_hashes"])
            for block in extras
        ]
    parent = BlockKey(int(case["parent"]) or scheme.root())
    tokens = array("Q", case["tokens"])
    if "error" in case:
        with pytest.raises(ValueError, match="full blocks"):
            scheme.keys(parent, tokens, extras)
    else:
        assert [str(key) for key in scheme.keys(parent, tokens, extras)] == case["keys"]


@pytest.mark.parametrize("case", GOLDEN["cbor_payloads"], ids=lambda c: f"{c['case']}-{c['step']}")
def test_the_reference_hash_of_these_tests_is_the_original_s(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["payload_hex"])
    assert str(reference_hash(payload)) == case["hash"]
    assert fnv1a_64(payload, FNV_OFFSET_BASIS) == int(case["hash"])


@pytest.mark.parametrize(
    "case", GOLDEN["compute_block_extra_features"], ids=lambda case: case["name"]
)
def test_multimodal_items_belong_to_the_blocks_they_overlap(case: dict[str, Any]) -> None:
    items = [
        MultimodalItem(image, place["offset"], place["length"])
        for kind, hashes in case["mm_hashes"].items()
        for image, place in zip(hashes, case["mm_placeholders"].get(kind, ()), strict=False)
    ]
    found = block_extras(items, None, case["num_tokens"], case["block_size"])
    if case["result_is_nil"]:
        assert found is None
    else:
        assert found is not None
        hashes = [block and [image for _, image in block] for block in found]
        assert hashes == case["result"]


TOKENS = st.one_of(
    st.integers(0, 30), st.integers(0, 70_000), st.integers(0, 2**25), st.integers(0, 2**64 - 1)
)


@given(
    tokens=st.lists(TOKENS, max_size=80),
    size=st.integers(1, 33),
    parent=st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1)),
)
def test_block_keys_of_any_tokens_are_those_of_cbor2(
    tokens: list[int], size: int, parent: int
) -> None:
    expected = reference_keys(parent, tokens, size, {})
    ids = array("Q", tokens)
    assert list(block_keys(parent, ids, size)) == expected
    assert list(block_keys(parent, memoryview(ids), size)) == expected


def test_salt_and_images_go_into_the_key_as_cbor2_writes_them() -> None:
    source = random.Random(3)
    tokens = [source.randrange(100_000) for _ in range(16 * 6)]
    scheme = KeyScheme("m", 16)
    root = reference_hash(cbor2.dumps([FNV_OFFSET_BASIS, None, "m"], canonical=True))
    items = [MultimodalItem("b" * 64, 40, 20), MultimodalItem("a" * 64, 10, 10)]
    image_a, image_b = {"Hash": "a" * 64}, {"Hash": "b" * 64}
    expected = reference_keys(
        root, tokens, 16, {0: [image_a, {"Salt": "t☃"}], 1: [image_a], 2: [image_b], 3: [image_b]}
    )
    extras = block_extras(items, "t☃", len(tokens), 16)
    assert list(scheme.keys(scheme.root(), array("Q", tokens), extras)) == expected


def test_embeddings_go_into_the_key_as_cbor2_writes_them() -> None:
    tokens = array("Q", [0] * 16)
    scheme = KeyScheme("m", 16)
    expected = reference_keys(scheme.root(), list(tokens), 16, {0: [{"Embeds": "00ff"}]})
    assert list(scheme.keys(scheme.root(), tokens, [(("Embeds", "00ff"),)])) == expected


def test_an_adapter_stands_in_for_the_model_at_the_root() -> None:
    assert KeyScheme("base", 16).root("adapter") == KeyScheme("adapter", 16).root()


def test_a_block_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="block size"):
        block_keys(1, array("Q", [1]), 0)


def test_blocks_without_extras_need_no_cbor() -> None:
    assert encode([None, None]) == [None, None]
    assert encode([(), None]) == [cbor2.dumps([]), None]  # an empty list is not none
    assert not KeyScheme("m", 16).keys(BlockKey(1), array("Q", [1, 2, 3]), [()])
    assert encode(None) is None


@pytest.mark.parametrize("step", [1, 16, 40, 64, 1000])
@pytest.mark.parametrize("salt", ["", "salt"])
def test_keys_that_are_made_in_steps_are_those_that_are_made_at_once(step: int, salt: str) -> None:
    tokens = range(200)
    items = [
        MultimodalItem("c", 47, 1),
        MultimodalItem("a", 3, 30),
        MultimodalItem("b", 34, 6),
        MultimodalItem("d", 64, 200),
    ]
    extras: dict[int, list[dict[str, str]]] = {
        0: [{"Hash": "a"}],
        1: [{"Hash": "a"}],
        2: [{"Hash": "a"}, {"Hash": "b"}, {"Hash": "c"}],
        **{block: [{"Hash": "d"}] for block in range(4, 12)},
    }
    if salt:
        extras[0] = [{"Hash": "a"}, {"Salt": salt}]
    root = reference_hash(cbor2.dumps([0xCBF29CE484222325, None, "lora"], canonical=True))
    expected = reference_keys(root, list(range(200)), 16, extras)
    prompt = PromptKeys(KeyScheme("m", 16), array("Q", tokens), "lora", items, salt)
    steps = sum(1 for _ in prompt.make_keys(step))
    assert steps == -(-200 // max(16, step // 16 * 16))
    assert prompt.block_keys(16).tolist() == expected
