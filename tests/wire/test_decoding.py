"""Recorded messages of real engines decode to what they say; broken ones cost only themselves."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from support.paths import DATA

from kvevents import (
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    FrameError,
    FrameLimits,
    PayloadError,
    decode_batch,
    parse_frame,
)
from kvevents.kernel.event_tails import TAILS
from kvevents.wire import Batch, decode_in_slices

MESSAGES = [
    json.loads(line)
    for name in ("vllm-0.33.0", "sglang-0.5.23")
    for line in (DATA / f"{name}.jsonl").read_text().splitlines()
]
STORED: dict[str, Any] = {
    "type": "BlockStored",
    "block_hashes": [1, 2],
    "parent_block_hash": None,
    "token_ids": [5, 6, 7, 8],
    "block_size": 2,
    "medium": "GPU",
}
REMOVED: dict[str, Any] = {"type": "BlockRemoved", "block_hashes": [1], "medium": "GPU"}


UNREAD_FIELDS = ("locality", "ownership", "session_id")


def as_hash(value: Any) -> int:
    if isinstance(value, dict):
        return int(value["bin"][-16:], 16)
    return int(value) & (2**64 - 1)


def as_wire(value: Any) -> Any:
    if isinstance(value, dict) and "bin" in value:
        return bytes.fromhex(value["bin"])
    return [as_wire(item) for item in value] if isinstance(value, list) else value


def check_event(event: Any, decoded: dict[str, Any]) -> None:
    assert type(event).__name__ == decoded["type"]
    for name, value in decoded.items():
        if name == "block_hashes":
            assert list(event.block_hashes) == [as_hash(item) for item in value]
        elif name == "parent_block_hash":
            assert event.parent_block_hash == (None if value is None else as_hash(value))
        elif name == "token_ids":  # of EAGLE pairs the first
            firsts = [item[0] if isinstance(item, list) else item for item in value]
            assert list(event.token_ids) == firsts
        elif name == "lookahead_token_ids":
            assert event.looks_ahead == (None if value is None else bool(value))
        elif name not in {"type", *UNREAD_FIELDS}:
            assert getattr(event, name) == as_wire(value), name


@pytest.mark.parametrize(
    "message", [message for message in MESSAGES if message["decoded"]], ids=lambda m: m["note"][:40]
)
def test_every_recorded_message_decodes_to_its_decoded_form(message: dict[str, Any]) -> None:
    frame = parse_frame([bytes.fromhex(part) for part in message["frames"]][-3:])
    batch = decode_batch(frame.payload)
    timestamp, events, rank = message["decoded"]
    assert (batch.timestamp, batch.rank, dict(batch.skipped)) == (timestamp, rank, {})
    assert len(batch.events) == len(events)
    for event, decoded in zip(batch.events, events, strict=True):
        check_event(event, decoded)


def test_the_recordings_hold_104_decoded_messages() -> None:
    assert sum(1 for message in MESSAGES if message["decoded"]) == 104


def decode(*events: Any, batch: Any = None) -> Any:
    return decode_batch(msgpack.packb([1.5, list(events), 3] if batch is None else batch))


def test_an_unknown_event_is_counted_and_its_neighbours_kept() -> None:
    batch = decode(STORED, {"type": "BlockMoved", "to": [1, {"a": b"x"}]}, ["Later", 1], REMOVED)
    assert [type(event) for event in batch.events] == [BlockStored, BlockRemoved]
    assert batch.skipped == {"unknown_event": 2}
    assert batch.rank == 3


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "BlockStored", "block_hashes": [1]},
        {**STORED, "token_ids": ["five"]},
        {**STORED, "token_ids": [-1]},
        {**STORED, "block_hashes": "many"},
        {**STORED, "block_hashes": [1.5]},
        {**STORED, "block_size": "2"},
        {**STORED, "extra_keys": {"a": 1}},
        {**REMOVED, "medium": 7},
        {**STORED, "cache_salt": msgpack.ExtType(1, b"ext")},
        {**STORED, "lookahead_token_ids": 7},
        {**STORED, "medium": "m" * 65},
        {**STORED, "lora_name": "a" * 1025},
        {**STORED, "lora_name": msgpack.ExtType(1, b"x" * 300)},
        ["BlockStored", [1], None, [5, 6], 2, None, "GPU", {"cache_salt": [1]}],
        {"no": "type"},
        ["BlockRemoved"],
        [],
        None,
        17,
        "BlockStored",
        [["BlockStored"]],
    ],
    ids=repr,
)
def test_a_broken_event_is_counted_and_its_neighbours_kept(broken: Any) -> None:
    batch = decode(STORED, broken, REMOVED)
    assert [type(event) for event in batch.events] == [BlockStored, BlockRemoved]
    assert batch.skipped == {"broken_event": 1}


def test_events_before_the_end_of_a_truncated_payload_are_kept() -> None:
    payload = msgpack.packb([1.5, [STORED, REMOVED, STORED], 0])
    cut = len(payload) - 30
    batch = decode_batch(payload[:cut])
    assert [type(event) for event in batch.events] == [BlockStored, BlockRemoved]
    assert batch.skipped == {"truncated_payload": 1}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "malformed_payload"),
        (b"\xc1", "unexpected_payload"),
        (msgpack.packb({"ts": 1}), "unexpected_payload"),
        (msgpack.packb([1.0]), "unexpected_payload"),
        (msgpack.packb([1.0, "events"]), "unexpected_payload"),
        (b"\x92\xcb\x00", "malformed_payload"),
        (b"\x92\x01\xdd\xff\xff\xff\xff", "malformed_payload"),
        (b"\x92" + b"\x91" * 5000, "malformed_payload"),
    ],
)
def test_a_payload_that_is_no_batch_is_refused_by_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError) as caught:
        decode_batch(payload)
    assert caught.value.reason == reason


def test_a_batch_of_two_elements_has_no_rank() -> None:
    assert decode(batch=[1.0, [REMOVED]]).rank is None


def test_unknown_fields_and_further_elements_of_an_event_are_ignored() -> None:
    batch = decode(
        {**STORED, "colour": ["red", {"deep": [1]}, msgpack.ExtType(5, b"four")]},
        ["BlockStored", [1], None, [5, 6], 2, None, "GPU", None, None, 0, "full", None, "x", {}],
        ["BlockRemoved", [1], "GPU", 0, "more"],
        ["AllBlocksCleared", 1, 2],
        {"type": "AllBlocksCleared"},
    )
    assert not batch.skipped
    assert len(batch.events) == 5
    assert batch.events[3:] == [AllBlocksCleared(), AllBlocksCleared()]


def test_older_array_events_of_every_length_decode() -> None:
    full: list[Any] = ["BlockStored", [1], 9, [5, 6], 2, 3, "GPU", "lora", [["lora"]], 1, "mla", 8]
    for length in range(5, len(full) + 1):
        (event,) = decode(full[:length]).events
        assert list(event.token_ids) == [5, 6]
        assert event.parent_block_hash == 9
        assert event.lora_name == ("lora" if length > 7 else None)
        assert event.group_idx == (1 if length > 9 else None)


def test_integers_of_every_width_decode() -> None:
    tokens = [0, 127, 128, 255, 256, 65535, 65536, 2**31, 2**32 - 1, 2**32, 2**62, 2**64 - 1]
    hashes = [0, -1, -32, -33, -128, -129, -(2**15), -(2**31), -(2**63), 2**63, 2**64 - 1]
    event = {**STORED, "token_ids": tokens, "block_hashes": hashes}
    (decoded,) = decode(event).events
    assert list(decoded.token_ids) == tokens
    assert list(decoded.block_hashes) == [value & (2**64 - 1) for value in hashes]


def test_frames_of_the_wrong_shape_are_refused_by_reason() -> None:
    for parts, reason in (
        ([b"a"], "frame_parts"),
        ([b"a", b"b"], "frame_parts"),
        ([b"", b"1234567", b""], "frame_sequence"),
    ):
        with pytest.raises(FrameError) as caught:
            parse_frame(parts)
        assert caught.value.reason == reason


def test_random_damage_never_raises_anything_but_a_payload_error() -> None:
    source = random.Random(5)
    payloads = [bytes.fromhex(m["frames"][-1]) for m in MESSAGES if m["decoded"]]
    for _ in range(4000):
        damaged = bytearray(source.choice(payloads))
        for _ in range(source.randrange(1, 5)):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        if source.random() < 0.3:
            del damaged[source.randrange(len(damaged)) :]
        try:
            decode_batch(bytes(damaged))
        except PayloadError as error:
            assert error.reason in {"malformed_payload", "unexpected_payload"}


def test_a_frame_is_refused_beyond_each_of_its_limits() -> None:
    limits = FrameLimits(payload_bytes=10_000, events=100, decoded_bytes=100_000)
    clear = ["AllBlocksCleared"]
    cases: dict[str, Any] = {
        "": [clear] * 100,
        "too_many_events": [clear] * 101,
        "frame_too_large": [{**STORED, "session_id": "x" * 10_000}],
        "too_many_elements": [{**STORED, "extra_keys": [[{}] * 2_000]}],
    }
    for reason, events in cases.items():
        refused = ""
        try:
            decode_batch(msgpack.packb([1.5, events, 0]), limits)
        except PayloadError as error:
            refused = error.reason
        assert refused == reason


@pytest.mark.parametrize(
    "elements",
    [
        {"extra_keys": [[{}] * 50_000]},
        {"extra_keys": [[{"a": 1}] * 20_000]},
        {"extra_keys": [["\U0001f600" * 30_000]]},
        {"extra_keys": [[b"x" * 50_000]]},
        {"extra_keys": [[1.5] * 20_000]},
        {"extra_keys": [[[]] * 50_000]},
        {"extra_keys": [None] * 50_000},
        {"block_hashes": [1] * 50_000},
        {"token_ids": [1] * 50_000},
        {"remaining_copy_counts": [300] * 20_000},
    ],
    ids=lambda elements: str(elements)[:24],
)
def test_an_event_is_charged_for_what_it_occupies(elements: dict[str, Any]) -> None:
    payload = msgpack.packb([1.5, [{**STORED, **elements}], 0])
    decode_batch(payload)  # whatever is made only once
    tracemalloc.start()
    batch = decode_batch(payload)
    occupied, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert batch.size >= 0.8 * occupied


def test_fields_that_nobody_reads_take_no_memory() -> None:
    batch = decode({**STORED, "session_id": "x" * 1_000_000, "locality": ["y" * 1_000_000]})
    assert batch.events
    assert batch.size < 2_000


def test_groups_that_repeat_their_tokens_share_one_array_and_others_do_not() -> None:
    tokens = [*range(100), 70_000, 2**40]
    first, same, longer, other = (
        {**STORED, "token_ids": ids}
        for ids in (tokens, list(tokens), [*tokens, 1], [*tokens[:-1], 2**40 + 1])
    )
    events = decode_batch(msgpack.packb([0.0, [first, same, longer, other], 0])).events
    arrays = [event.token_ids for event in events if isinstance(event, BlockStored)]
    assert [list(array) for array in arrays] == [
        event["token_ids"] for event in (first, same, longer, other)
    ]
    assert arrays[0] is arrays[1]
    assert arrays[2] is not arrays[1]


def test_slices_decode_to_what_the_whole_does_however_damaged() -> None:
    source = random.Random(7)
    payloads = [bytes.fromhex(m["frames"][-1]) for m in MESSAGES if m["decoded"]]
    payloads.append(msgpack.packb([0.0, [STORED, REMOVED] * 150, 3]))
    outcomes = set()
    for _ in range(1500):
        damaged = bytearray(source.choice(payloads))
        for _ in range(source.randrange(4)):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        payload = bytes(damaged)
        outcomes.add(whole := outcome(decode_batch, payload))
        assert outcome(decoded_in_slices, payload) == whole
    assert len(outcomes) > 100


def outcome(decode: Callable[[bytes], Batch], payload: bytes) -> str:
    try:
        return repr(decode(payload))
    except PayloadError as error:
        return f"{error.reason} {error}"


def decoded_in_slices(payload: bytes) -> Batch:
    steps = decode_in_slices(payload)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            batch: Batch = done.value
            return batch


def limited(payload: bytes) -> Batch:
    return decode_batch(payload, FrameLimits(hashes=40, decoded_bytes=8_000))


def random_event(source: random.Random) -> Any:
    """A map or an array, often like others, with fields missing, odd, twice or out of order."""
    count = source.choice([0, 1, 2, 3, 20])
    fields: dict[str, Any] = {
        "type": source.choice(["BlockStored"] * 9 + ["BlockRemoved", "Other"]),
        "block_hashes": [source.getrandbits(64) for _ in range(count)],
        "parent_block_hash": source.choice([None, source.getrandbits(64)]),
        "token_ids": [source.randrange(200_000) for _ in range(2 * count)],
        "block_size": source.choice([2, 2, 2, None, "2"]),
        "lora_id": source.choice([None, None, 1]),
        "medium": source.choice(["GPU", "GPU", None, "x" * 70]),
        "lora_name": source.choice([None, None, "a", {"lora_name": "b", "cache_salt": "c"}]),
        "extra_keys": source.choice([None, [None] * count, [["salt"]] * count]),
        "group_idx": source.choice([None, 0, 3]),
    }
    if source.random() < 0.4:
        return list(fields.values())[: source.choice([11, 10, 9, 8, 7, 5, 4, 2])]
    if source.random() < 0.3:
        fields["unknown"] = [1, {"a": 2}]
    if source.random() < 0.2:
        fields.pop(source.choice(list(fields)))
    names = list(fields)
    if source.random() < 0.2:
        source.shuffle(names)
    return {name: fields[name] for name in names}


def test_an_event_decodes_to_the_same_whether_or_not_others_like_it_came_before() -> None:
    source = random.Random(7)
    payloads: list[bytes] = []
    for _ in range(1_500):
        events = [random_event(source) for _ in range(source.choice([1, 1, 2, 3]))]
        made = bytearray(msgpack.packb([1.0, events, 0]))
        if source.random() < 0.2:
            made[source.randrange(len(made))] = source.getrandbits(8)
        if source.random() < 0.1:
            del made[source.randrange(len(made)) :]
        if source.random() < 0.1:  # a field of a map twice
            made = bytearray(made.replace(b"\xa7lora_id", b"\xa9token_ids"))
        payloads.append(bytes(made))
    TAILS.clear()
    for earlier in payloads:
        outcome(limited, earlier)
    known = len(TAILS)
    warm = [outcome(limited, payload) for payload in payloads]
    assert known > 50
    for payload, expected in zip(payloads, warm, strict=True):
        TAILS.clear()
        assert outcome(limited, payload) == expected


def test_no_more_than_some_hundred_tails_of_events_are_remembered() -> None:
    for number in range(2_000):
        decode_batch(msgpack.packb([1.0, [STORED | {"lora_name": str(number)}], 0]))
    assert 0 < len(TAILS) <= 512
    decode_batch(msgpack.packb([1.0, [STORED | {"lora_name": "n" * 600}], 0]))
    assert max(len(tail) for tail, _ in TAILS) <= 512
