"""Values of the store: what a replica packs is unpacked, anything else is malformed."""

from __future__ import annotations

import time
from array import array
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import (
    CacheLayout,
    Group,
    Place,
    ReplicatedIndex,
    StableHolderIds,
    TrustState,
    TrustStatus,
    Worker,
)
from kvevents import StreamReport
from service.replication.reports import stream_report
from store import HandoverState, StoreError, WorkerRecord
from store.read import Rows
from store.records import (
    ForwardedOutcome,
    ForwardedRouting,
    Garbage,
    JournalEntry,
    RoutingEntry,
    SharedDecision,
    unpack_report,
)

if TYPE_CHECKING:
    from collections.abc import Callable

WORKER = Worker("10.0.0.1:8000", 3)
LAYOUT = CacheLayout(
    16, {0: Group("full_attention", 0, 16), 2: Group("mamba")}, 0, None, {"cpu": 64}
)
IDS = StableHolderIds({None: 0, Place("gpu", 0): 1, Place("gpu", -1): 2, Place("cpu", 2): 5}, 6)
RECORD = WorkerRecord(
    worker=WORKER,
    model="m",
    endpoint="tcp://10.0.0.1:5557",
    owner="a#1",
    generation="0a1b2c3d",
    epoch=1_764_000_000_000,
    revision=7,
    status=TrustStatus(TrustState.DEGRADED, "gap", None, 2**64 - 1),
    layout=LAYOUT,
    places={0: Place("gpu", 0), 9: Place("cpu", 2)},
    shard_stamps={15: "1764000000000:7"},
    registry="beef",
    scheme="s",
)
ROWS = array("Q", [1, 1 << 32 | 1 << 16 | 1, 2, 5 << 32 | 3 << 16 | 1])
ENTRY = JournalEntry(
    worker=WORKER,
    record=RECORD,
    holder_ids=IDS,
    names=array("Q", [10, 11]),
    counts=array("H", [1, 1]),
    rows=ROWS,
)
STATE = HandoverState({"life": {}}, LAYOUT, IDS, {1: 0, 5: 9}, {3: 4}, {15: "1:7"}, "beef", "s")
GARBAGE = msgpack.packb(
    ["w", "m", msgpack.packb(["beef", {"0a:1": 3}]), True, 5], use_bin_type=False
)
REPORT = {"silent": 0.5, "counts": {"gaps": 1}, "blocks": {"gpu": 3}, "replay_endpoint": None}

KINDS: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "record": (RECORD.pack(), WorkerRecord.unpack),
    "journal entry": (ENTRY.pack(), JournalEntry.unpack),
    "handover state": (STATE.pack(), HandoverState.unpack),
    "garbage": (GARBAGE, lambda blob: Garbage.unpack("0a1b2c3d", blob, 0)),
    "report": (msgpack.packb(REPORT), lambda blob: stream_report(unpack_report(blob))),
}
MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "no msgpack": b"\xc1",
    "a number": b"\x05",
    "an empty list": b"\x90",
    "an empty map": b"\x80",
    "a map with a list as its key": b"\x81\x90\x01",
    "a deep list": b"\x91" * 100_000,
    "a list of many lists": b"\xdd\x00\x01\x00\x00" + b"\x90" * 65_536,
    "a million of numbers": b"\xdd\x00\x10\x00\x00" + b"\x01" * 2**20,
}
PARTS: list[Any] = [
    None,
    True,
    -1,
    2**31,
    2**53 + 1,
    2**64 - 1,
    0.5,
    float("nan"),
    "x" * 5000,
    b"\xff",
    [],
    {},
]


def test_what_is_packed_is_unpacked() -> None:
    assert WorkerRecord.unpack(RECORD.pack()) == RECORD
    entry, state = JournalEntry.unpack(ENTRY.pack()), HandoverState.unpack(STATE.pack())
    assert (entry.record, entry.names, entry.rows) == (RECORD, ENTRY.names, ENTRY.rows)
    assert (entry.holder_ids.ids, state.holder_ids.ids) == (IDS.ids, IDS.ids)
    assert (state.bits, state.retired_bits, state.layout) == (
        STATE.bits,
        STATE.retired_bits,
        LAYOUT,
    )
    garbage = Garbage.unpack("0a1b2c3d", GARBAGE, 4)
    assert (garbage.model, garbage.registry, garbage.bits) == ("m", "beef", {"0a:1": 3})
    removed = JournalEntry.unpack(JournalEntry(WORKER, removed=True).pack())
    assert (removed.worker, removed.removed, removed.record) == (WORKER, True, None)


@pytest.mark.parametrize("malformed", MALFORMED)
@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"report"}))
def test_what_is_no_such_value_is_malformed(kind: str, malformed: str) -> None:
    with pytest.raises(StoreError) as raised:
        KINDS[kind][1](MALFORMED[malformed])
    assert raised.value.kind == "malformed"
    assert len(str(raised.value)) <= 1000


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(max_examples=100)
@given(data=st.data())
def test_a_value_with_any_part_replaced_is_unpacked_or_malformed(
    kind: str, data: st.DataObject
) -> None:
    blob, unpack = KINDS[kind]
    value = msgpack.unpackb(blob, strict_map_key=False, raw=kind == "garbage")
    where: Any = value
    while True:
        names = sorted(where, key=str) if isinstance(where, dict) else range(len(where))
        name = data.draw(st.sampled_from(list(names)))
        if not isinstance(where[name], (dict, list)) or not where[name] or data.draw(st.booleans()):
            break
        where = where[name]
    where[name] = data.draw(st.sampled_from(PARTS))
    try:
        unpacked = unpack(msgpack.packb(value, use_bin_type=kind != "garbage"))
    except StoreError as error:
        assert error.kind == "malformed"
    else:
        assert type(unpacked).__name__ in {
            *("WorkerRecord", "JournalEntry", "HandoverState", "Garbage", "StreamReport")
        }


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(max_examples=100)
@given(data=st.data())
def test_a_value_with_bytes_replaced_is_unpacked_or_malformed(
    kind: str, data: st.DataObject
) -> None:
    blob, unpack = KINDS[kind]
    start = data.draw(st.integers(0, len(blob)))
    damaged = (
        blob[:start]
        + data.draw(st.binary(max_size=8))
        + blob[start + data.draw(st.integers(0, 8)) :]
    )
    try:
        unpack(damaged)
    except StoreError as error:
        assert error.kind == "malformed"


@pytest.mark.parametrize(
    ("names", "counts", "rows"),
    [
        ([10, 11], [1], ROWS),  # a name without a count
        ([10], [1], ROWS),  # rows without a name
        ([10, 11], [1, 2], ROWS),
        ([10, 11] * 500, [40] * 1000, array("Q", [1, 1 << 32 | 0xFFFF << 16 | 1] * 40_000)),
    ],
)
def test_rows_that_do_not_fit_together_are_malformed(
    names: list[int], counts: list[int], rows: array[int]
) -> None:
    entry = replace(ENTRY, names=array("Q", names), counts=array("H", counts), rows=rows)
    with pytest.raises(StoreError, match="malformed"):
        JournalEntry.unpack(entry.pack())


def test_a_row_of_a_holder_that_there_never_was_is_malformed() -> None:
    index = ReplicatedIndex(2**26)
    index.join(WORKER, "m")
    rows = Rows(array("Q", [10]), array("H", [1]), array("Q", [1, 6 << 32 | 1 << 16 | 1]))
    with pytest.raises(StoreError, match="malformed"):
        rows.apply(index, WORKER, LAYOUT, IDS)


def test_a_huge_value_is_refused_before_it_is_decoded() -> None:
    huge = msgpack.packb([[]] * 5_000_000)
    for kind, (_, unpack) in KINDS.items():
        began = time.perf_counter()
        with pytest.raises(StoreError):
            unpack(huge)
        assert time.perf_counter() - began < 1.0, kind


def test_a_report_has_the_fields_that_streams_report() -> None:
    report = StreamReport(
        1.0,
        2.0,
        {"gaps": 1},
        {"a": 2},
        {"b": 3},
        16,
        4,
        "tcp://x:1",
        "y",
        5,
        resolved=True,
        rivals=6,
    )
    values = {field.name: getattr(report, field.name) for field in fields(report)}
    assert stream_report(values) == report


KEYS = {16: array("Q", [1, 2**64 - 1]), 8: array("Q", [1, 2, 3, 4])}
ROUTINGS = RoutingEntry(
    b"8 bytes.",
    7,
    [
        SharedDecision(b"handle", WORKER, "m", 16, KEYS, 2.5),
        ForwardedRouting(b"handle", WORKER.pod, None, 2.0),
        ForwardedRouting(b"handle", WORKER.pod, 3, 2.0),
        ForwardedOutcome(b"handle", "", None, 48, {"gpu": 40, "cpu": 8}),
    ],
)


def test_a_routing_entry_is_unpacked_as_it_was_packed() -> None:
    assert RoutingEntry.unpack(ROUTINGS.pack()) == ROUTINGS


def packed(*message: Any) -> bytes:
    return bytes(msgpack.packb([b"origin", 0, [message]]))


DECISION = ["decision", b"h", ("a:1", 0), "m", 16, {16: b"8 bytes."}, 1.0]


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        msgpack.packb([]),
        msgpack.packb(["text", 0, []]),
        msgpack.packb([b"origin", -1, []]),
        packed("another", b"h"),
        packed("routing", b"h" * 65, "a:1", None, 1.0),
        packed("routing", b"h", "a:1", -1, 1.0),
        packed("routing", b"h", "a:1", None, float("nan")),
        packed("routing", b"h", "a:1", None, 1e9),
        packed("outcome", b"h", "a:1", None, -1, {}),
        packed("outcome", b"h", "a:1", None, 1, {str(number): 1 for number in range(17)}),
        packed(*DECISION[:5], {}, 1.0),
        packed(*DECISION[:5], {16: b""}, 1.0),
        packed(*DECISION[:5], {8: b"8 bytes."}, 1.0),
        packed(*DECISION[:5], {16: b"7 bytes"}, 1.0),
        packed(*DECISION[:5], {16: b"8 bytes." * 2, 0: b""}, 1.0),
        packed(*DECISION[:5], {16: b"8 bytes." * 3, 8: b"8 bytes." * 2}, 1.0),
        packed(*DECISION[:2], ("a:1",), *DECISION[3:]),
    ],
)
def test_a_malformed_routing_entry_is_refused(blob: bytes) -> None:
    RoutingEntry.unpack(packed(*DECISION))
    with pytest.raises(StoreError, match="routing entry"):
        RoutingEntry.unpack(blob)
