from kvatlas.v1 import trust_pb2 as _trust_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PodChange(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POD_CHANGE_UNSPECIFIED: _ClassVar[PodChange]
    POD_CHANGE_LISTED: _ClassVar[PodChange]
    POD_CHANGE_LIST_COMPLETE: _ClassVar[PodChange]
    POD_CHANGE_APPEARED: _ClassVar[PodChange]
    POD_CHANGE_TRUST_CHANGED: _ClassVar[PodChange]
    POD_CHANGE_RESTARTED: _ClassVar[PodChange]
    POD_CHANGE_OWNER_CHANGED: _ClassVar[PodChange]
    POD_CHANGE_DISAPPEARED: _ClassVar[PodChange]
POD_CHANGE_UNSPECIFIED: PodChange
POD_CHANGE_LISTED: PodChange
POD_CHANGE_LIST_COMPLETE: PodChange
POD_CHANGE_APPEARED: PodChange
POD_CHANGE_TRUST_CHANGED: PodChange
POD_CHANGE_RESTARTED: PodChange
POD_CHANGE_OWNER_CHANGED: PodChange
POD_CHANGE_DISAPPEARED: PodChange

class ListPodsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ListPodsResponse(_message.Message):
    __slots__ = ("pods", "warnings", "shared_index")
    PODS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    SHARED_INDEX_FIELD_NUMBER: _ClassVar[int]
    pods: _containers.RepeatedCompositeFieldContainer[Pod]
    warnings: _containers.RepeatedCompositeFieldContainer[FleetWarning]
    shared_index: SharedIndex
    def __init__(self, pods: _Optional[_Iterable[_Union[Pod, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[FleetWarning, _Mapping]]] = ..., shared_index: _Optional[_Union[SharedIndex, _Mapping]] = ...) -> None: ...

class SharedIndex(_message.Message):
    __slots__ = ("replica", "live_replicas", "copy_behind_seconds", "store_failure")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    LIVE_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    COPY_BEHIND_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STORE_FAILURE_FIELD_NUMBER: _ClassVar[int]
    replica: str
    live_replicas: _containers.RepeatedScalarFieldContainer[str]
    copy_behind_seconds: float
    store_failure: str
    def __init__(self, replica: _Optional[str] = ..., live_replicas: _Optional[_Iterable[str]] = ..., copy_behind_seconds: _Optional[float] = ..., store_failure: _Optional[str] = ...) -> None: ...

class FleetWarning(_message.Message):
    __slots__ = ("kind", "model", "pods", "detail")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    kind: str
    model: str
    pods: _containers.RepeatedScalarFieldContainer[str]
    detail: str
    def __init__(self, kind: _Optional[str] = ..., model: _Optional[str] = ..., pods: _Optional[_Iterable[str]] = ..., detail: _Optional[str] = ...) -> None: ...

class Pod(_message.Message):
    __slots__ = ("pod", "model", "ranks")
    POD_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    pod: str
    model: str
    ranks: _containers.RepeatedCompositeFieldContainer[Rank]
    def __init__(self, pod: _Optional[str] = ..., model: _Optional[str] = ..., ranks: _Optional[_Iterable[_Union[Rank, _Mapping]]] = ...) -> None: ...

class Rank(_message.Message):
    __slots__ = ("rank", "blocks_by_tier", "last_event_age_seconds", "last_sequence", "missed_frames", "events", "skipped", "engine_block_size", "trust_state", "trust_reason", "silent_seconds", "gaps", "replayed_frames", "duplicate_frames", "late_frames", "restarts", "replays", "replay_failures", "orphan_blocks", "overflows", "replay_endpoint", "live_frames", "owner", "groups", "rival_frames", "delivered")
    class BlocksByTierEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class EventsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class SkippedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    RANK_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_BY_TIER_FIELD_NUMBER: _ClassVar[int]
    LAST_EVENT_AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MISSED_FRAMES_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    ENGINE_BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    TRUST_STATE_FIELD_NUMBER: _ClassVar[int]
    TRUST_REASON_FIELD_NUMBER: _ClassVar[int]
    SILENT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FRAMES_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FRAMES_FIELD_NUMBER: _ClassVar[int]
    LATE_FRAMES_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    REPLAYS_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FAILURES_FIELD_NUMBER: _ClassVar[int]
    ORPHAN_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    OVERFLOWS_FIELD_NUMBER: _ClassVar[int]
    REPLAY_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    LIVE_FRAMES_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    RIVAL_FRAMES_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    rank: int
    blocks_by_tier: _containers.ScalarMap[str, int]
    last_event_age_seconds: float
    last_sequence: int
    missed_frames: int
    events: _containers.ScalarMap[str, int]
    skipped: _containers.ScalarMap[str, int]
    engine_block_size: int
    trust_state: _trust_pb2.TrustState
    trust_reason: str
    silent_seconds: float
    gaps: int
    replayed_frames: int
    duplicate_frames: int
    late_frames: int
    restarts: int
    replays: int
    replay_failures: int
    orphan_blocks: int
    overflows: int
    replay_endpoint: str
    live_frames: int
    owner: str
    groups: _containers.RepeatedCompositeFieldContainer[CacheGroup]
    rival_frames: int
    delivered: DeliveredTokens
    def __init__(self, rank: _Optional[int] = ..., blocks_by_tier: _Optional[_Mapping[str, int]] = ..., last_event_age_seconds: _Optional[float] = ..., last_sequence: _Optional[int] = ..., missed_frames: _Optional[int] = ..., events: _Optional[_Mapping[str, int]] = ..., skipped: _Optional[_Mapping[str, int]] = ..., engine_block_size: _Optional[int] = ..., trust_state: _Optional[_Union[_trust_pb2.TrustState, str]] = ..., trust_reason: _Optional[str] = ..., silent_seconds: _Optional[float] = ..., gaps: _Optional[int] = ..., replayed_frames: _Optional[int] = ..., duplicate_frames: _Optional[int] = ..., late_frames: _Optional[int] = ..., restarts: _Optional[int] = ..., replays: _Optional[int] = ..., replay_failures: _Optional[int] = ..., orphan_blocks: _Optional[int] = ..., overflows: _Optional[int] = ..., replay_endpoint: _Optional[str] = ..., live_frames: _Optional[int] = ..., owner: _Optional[str] = ..., groups: _Optional[_Iterable[_Union[CacheGroup, _Mapping]]] = ..., rival_frames: _Optional[int] = ..., delivered: _Optional[_Union[DeliveredTokens, _Mapping]] = ...) -> None: ...

class DeliveredTokens(_message.Message):
    __slots__ = ("outcomes", "promised_tokens", "delivered_tokens", "missing_tokens", "delivered_tokens_by_source")
    class DeliveredTokensBySourceEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    PROMISED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MISSING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_TOKENS_BY_SOURCE_FIELD_NUMBER: _ClassVar[int]
    outcomes: int
    promised_tokens: int
    delivered_tokens: int
    missing_tokens: int
    delivered_tokens_by_source: _containers.ScalarMap[str, int]
    def __init__(self, outcomes: _Optional[int] = ..., promised_tokens: _Optional[int] = ..., delivered_tokens: _Optional[int] = ..., missing_tokens: _Optional[int] = ..., delivered_tokens_by_source: _Optional[_Mapping[str, int]] = ...) -> None: ...

class CacheGroup(_message.Message):
    __slots__ = ("group", "kind", "window", "block_size")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    group: int
    kind: str
    window: int
    block_size: int
    def __init__(self, group: _Optional[int] = ..., kind: _Optional[str] = ..., window: _Optional[int] = ..., block_size: _Optional[int] = ...) -> None: ...

class ForgetPodRequest(_message.Message):
    __slots__ = ("pod",)
    POD_FIELD_NUMBER: _ClassVar[int]
    pod: str
    def __init__(self, pod: _Optional[str] = ...) -> None: ...

class ForgetPodResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResyncPodRequest(_message.Message):
    __slots__ = ("pod",)
    POD_FIELD_NUMBER: _ClassVar[int]
    pod: str
    def __init__(self, pod: _Optional[str] = ...) -> None: ...

class ResyncPodResponse(_message.Message):
    __slots__ = ("replaying_ranks", "emptied_ranks")
    REPLAYING_RANKS_FIELD_NUMBER: _ClassVar[int]
    EMPTIED_RANKS_FIELD_NUMBER: _ClassVar[int]
    replaying_ranks: _containers.RepeatedScalarFieldContainer[int]
    emptied_ranks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, replaying_ranks: _Optional[_Iterable[int]] = ..., emptied_ranks: _Optional[_Iterable[int]] = ...) -> None: ...

class RecordFramesRequest(_message.Message):
    __slots__ = ("endpoint",)
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    endpoint: str
    def __init__(self, endpoint: _Optional[str] = ...) -> None: ...

class RecordFramesResponse(_message.Message):
    __slots__ = ("received_at", "endpoint", "parts", "dropped")
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    received_at: float
    endpoint: str
    parts: _containers.RepeatedScalarFieldContainer[bytes]
    dropped: int
    def __init__(self, received_at: _Optional[float] = ..., endpoint: _Optional[str] = ..., parts: _Optional[_Iterable[bytes]] = ..., dropped: _Optional[int] = ...) -> None: ...

class WatchPodsRequest(_message.Message):
    __slots__ = ("model", "pods")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    model: str
    pods: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., pods: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchPodsResponse(_message.Message):
    __slots__ = ("change", "pod", "model", "rank", "trust_state", "trust_reason", "silent_seconds", "last_sequence", "restarts", "owner", "changed_at", "skipped_changes")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    TRUST_STATE_FIELD_NUMBER: _ClassVar[int]
    TRUST_REASON_FIELD_NUMBER: _ClassVar[int]
    SILENT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CHANGED_AT_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_CHANGES_FIELD_NUMBER: _ClassVar[int]
    change: PodChange
    pod: str
    model: str
    rank: int
    trust_state: _trust_pb2.TrustState
    trust_reason: str
    silent_seconds: float
    last_sequence: int
    restarts: int
    owner: str
    changed_at: float
    skipped_changes: int
    def __init__(self, change: _Optional[_Union[PodChange, str]] = ..., pod: _Optional[str] = ..., model: _Optional[str] = ..., rank: _Optional[int] = ..., trust_state: _Optional[_Union[_trust_pb2.TrustState, str]] = ..., trust_reason: _Optional[str] = ..., silent_seconds: _Optional[float] = ..., last_sequence: _Optional[int] = ..., restarts: _Optional[int] = ..., owner: _Optional[str] = ..., changed_at: _Optional[float] = ..., skipped_changes: _Optional[int] = ...) -> None: ...
