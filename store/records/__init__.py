"""The values that the store keeps, as msgpack. Decoding a malformed one raises StoreError.

What is decoded has the types and bounds of `checks`: who uses it need not check again. Only the
dump of a stream is checked by those who know streams.

    checks           packs values, and checks types and bounds
    garbage          what is known of a generation that is not needed any more
    journal_entry    entries of the journal, and their rows
    routing_entry    entries of the routing journal
    shard_status     what one shard knows besides blocks
    worker           a worker's record, its report, and what its next owner needs
"""

from __future__ import annotations

from store.records.checks import pack
from store.records.garbage import Garbage, labels_of
from store.records.journal_entry import JournalEntry, check_holder_ids, checked_columns
from store.records.routing_entry import (
    ForwardedOutcome,
    ForwardedRouting,
    RoutingEntry,
    RoutingMessage,
    SharedDecision,
)
from store.records.shard_status import ShardStatus, StatusDecoder, pairs, unpack_record
from store.records.worker import MAX_STATE_BYTES, HandoverState, WorkerRecord, unpack_report

__all__ = [
    "MAX_STATE_BYTES",
    "ForwardedOutcome",
    "ForwardedRouting",
    "Garbage",
    "HandoverState",
    "JournalEntry",
    "RoutingEntry",
    "RoutingMessage",
    "ShardStatus",
    "SharedDecision",
    "StatusDecoder",
    "WorkerRecord",
    "check_holder_ids",
    "checked_columns",
    "labels_of",
    "pack",
    "pairs",
    "unpack_record",
    "unpack_report",
]
