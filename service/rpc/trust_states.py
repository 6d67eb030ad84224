"""Trust states of the index -> those of the protocol."""

from __future__ import annotations

from kvatlas.v1 import trust_pb2

from indexer import TrustState

TRUST_STATES: dict[TrustState, trust_pb2.TrustState] = {
    TrustState.EXACT: trust_pb2.TRUST_STATE_EXACT,
    TrustState.PARTIAL: trust_pb2.TRUST_STATE_PARTIAL,
    TrustState.RECOVERING: trust_pb2.TRUST_STATE_RECOVERING,
    TrustState.DEGRADED: trust_pb2.TRUST_STATE_DEGRADED,
    TrustState.STALE: trust_pb2.TRUST_STATE_STALE,
    TrustState.UNKNOWN: trust_pb2.TRUST_STATE_UNKNOWN,
}
