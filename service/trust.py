"""States of trust in the index's words -> the answer's."""

from __future__ import annotations

from kvatlas.v1 import trust_pb2

from kvevents import State

TRUST_STATES: dict[State, trust_pb2.TrustState] = {
    State.EXACT: trust_pb2.TRUST_STATE_EXACT,
    State.PARTIAL: trust_pb2.TRUST_STATE_PARTIAL,
    State.RECOVERING: trust_pb2.TRUST_STATE_RECOVERING,
    State.DEGRADED: trust_pb2.TRUST_STATE_DEGRADED,
    State.STALE: trust_pb2.TRUST_STATE_STALE,
    State.UNKNOWN: trust_pb2.TRUST_STATE_UNKNOWN,
}
