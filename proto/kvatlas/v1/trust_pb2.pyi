from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class TrustState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUST_STATE_UNSPECIFIED: _ClassVar[TrustState]
    TRUST_STATE_EXACT: _ClassVar[TrustState]
    TRUST_STATE_PARTIAL: _ClassVar[TrustState]
    TRUST_STATE_RECOVERING: _ClassVar[TrustState]
    TRUST_STATE_DEGRADED: _ClassVar[TrustState]
    TRUST_STATE_STALE: _ClassVar[TrustState]
    TRUST_STATE_UNKNOWN: _ClassVar[TrustState]
TRUST_STATE_UNSPECIFIED: TrustState
TRUST_STATE_EXACT: TrustState
TRUST_STATE_PARTIAL: TrustState
TRUST_STATE_RECOVERING: TrustState
TRUST_STATE_DEGRADED: TrustState
TRUST_STATE_STALE: TrustState
TRUST_STATE_UNKNOWN: TrustState
