from kvatlas.v1 import fleet_pb2 as _fleet_pb2
from kvatlas.v1 import scoring_pb2 as _scoring_pb2
from kvatlas.v1 import trust_pb2 as _trust_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExplainRequest(_message.Message):
    __slots__ = ("score",)
    SCORE_FIELD_NUMBER: _ClassVar[int]
    score: _scoring_pb2.ScoreRequest
    def __init__(self, score: _Optional[_Union[_scoring_pb2.ScoreRequest, _Mapping]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("summary", "prompt", "pods", "pods_left_out", "unknown_pods", "suspects", "unused_fields", "warnings", "steps", "copy_behind_seconds", "is_cut")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    PODS_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_PODS_FIELD_NUMBER: _ClassVar[int]
    SUSPECTS_FIELD_NUMBER: _ClassVar[int]
    UNUSED_FIELDS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    COPY_BEHIND_SECONDS_FIELD_NUMBER: _ClassVar[int]
    IS_CUT_FIELD_NUMBER: _ClassVar[int]
    summary: str
    prompt: ExplainedPrompt
    pods: _containers.RepeatedCompositeFieldContainer[ExplainedPod]
    pods_left_out: int
    unknown_pods: _containers.RepeatedCompositeFieldContainer[UnknownPod]
    suspects: _containers.RepeatedCompositeFieldContainer[Suspect]
    unused_fields: _containers.RepeatedCompositeFieldContainer[UnusedField]
    warnings: _containers.RepeatedCompositeFieldContainer[_fleet_pb2.FleetWarning]
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    copy_behind_seconds: float
    is_cut: bool
    def __init__(self, summary: _Optional[str] = ..., prompt: _Optional[_Union[ExplainedPrompt, _Mapping]] = ..., pods: _Optional[_Iterable[_Union[ExplainedPod, _Mapping]]] = ..., pods_left_out: _Optional[int] = ..., unknown_pods: _Optional[_Iterable[_Union[UnknownPod, _Mapping]]] = ..., suspects: _Optional[_Iterable[_Union[Suspect, _Mapping]]] = ..., unused_fields: _Optional[_Iterable[_Union[UnusedField, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[_fleet_pb2.FleetWarning, _Mapping]]] = ..., steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ..., copy_behind_seconds: _Optional[float] = ..., is_cut: bool = ...) -> None: ...

class ExplainedPrompt(_message.Message):
    __slots__ = ("input", "text", "text_characters", "total_tokens", "first_token_ids", "tail_token_ids", "tail_tokens", "total_blocks", "block_size", "added_token_ids", "encoder", "tokenizer", "template", "salt_source", "lora_name", "items", "root_key", "first_keys", "summary")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TEXT_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TAIL_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TAIL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    ADDED_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    SALT_SOURCE_FIELD_NUMBER: _ClassVar[int]
    LORA_NAME_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ROOT_KEY_FIELD_NUMBER: _ClassVar[int]
    FIRST_KEYS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    input: str
    text: str
    text_characters: int
    total_tokens: int
    first_token_ids: _containers.RepeatedScalarFieldContainer[int]
    tail_token_ids: _containers.RepeatedScalarFieldContainer[int]
    tail_tokens: int
    total_blocks: int
    block_size: int
    added_token_ids: _containers.RepeatedScalarFieldContainer[int]
    encoder: str
    tokenizer: str
    template: str
    salt_source: str
    lora_name: str
    items: _containers.RepeatedCompositeFieldContainer[ExplainedItem]
    root_key: int
    first_keys: _containers.RepeatedScalarFieldContainer[int]
    summary: str
    def __init__(self, input: _Optional[str] = ..., text: _Optional[str] = ..., text_characters: _Optional[int] = ..., total_tokens: _Optional[int] = ..., first_token_ids: _Optional[_Iterable[int]] = ..., tail_token_ids: _Optional[_Iterable[int]] = ..., tail_tokens: _Optional[int] = ..., total_blocks: _Optional[int] = ..., block_size: _Optional[int] = ..., added_token_ids: _Optional[_Iterable[int]] = ..., encoder: _Optional[str] = ..., tokenizer: _Optional[str] = ..., template: _Optional[str] = ..., salt_source: _Optional[str] = ..., lora_name: _Optional[str] = ..., items: _Optional[_Iterable[_Union[ExplainedItem, _Mapping]]] = ..., root_key: _Optional[int] = ..., first_keys: _Optional[_Iterable[int]] = ..., summary: _Optional[str] = ...) -> None: ...

class ExplainedItem(_message.Message):
    __slots__ = ("hash", "offset", "length", "first_block", "end_block")
    HASH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    FIRST_BLOCK_FIELD_NUMBER: _ClassVar[int]
    END_BLOCK_FIELD_NUMBER: _ClassVar[int]
    hash: str
    offset: int
    length: int
    first_block: int
    end_block: int
    def __init__(self, hash: _Optional[str] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ..., first_block: _Optional[int] = ..., end_block: _Optional[int] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("step", "microseconds")
    STEP_FIELD_NUMBER: _ClassVar[int]
    MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    step: str
    microseconds: int
    def __init__(self, step: _Optional[str] = ..., microseconds: _Optional[int] = ...) -> None: ...

class UnusedField(_message.Message):
    __slots__ = ("field", "reason")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    field: str
    reason: str
    def __init__(self, field: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class UnknownPod(_message.Message):
    __slots__ = ("pod", "similar", "serves_model", "summary")
    POD_FIELD_NUMBER: _ClassVar[int]
    SIMILAR_FIELD_NUMBER: _ClassVar[int]
    SERVES_MODEL_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    pod: str
    similar: _containers.RepeatedScalarFieldContainer[str]
    serves_model: str
    summary: str
    def __init__(self, pod: _Optional[str] = ..., similar: _Optional[_Iterable[str]] = ..., serves_model: _Optional[str] = ..., summary: _Optional[str] = ...) -> None: ...

class ExplainedPod(_message.Message):
    __slots__ = ("pod", "best_rank", "ranks", "ranks_left_out", "summary")
    POD_FIELD_NUMBER: _ClassVar[int]
    BEST_RANK_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    RANKS_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    pod: str
    best_rank: int
    ranks: _containers.RepeatedCompositeFieldContainer[ExplainedRank]
    ranks_left_out: int
    summary: str
    def __init__(self, pod: _Optional[str] = ..., best_rank: _Optional[int] = ..., ranks: _Optional[_Iterable[_Union[ExplainedRank, _Mapping]]] = ..., ranks_left_out: _Optional[int] = ..., summary: _Optional[str] = ...) -> None: ...

class ExplainedRank(_message.Message):
    __slots__ = ("rank", "reason", "summary", "score", "matched_blocks", "matched_tokens", "matched_blocks_by_tier", "reusable_tokens", "reusable_is_bound", "reuse_limits", "speculative_blocks", "first_missing", "held_after_missing", "groups", "key_block_size", "trust_state", "trust_reason", "silent_seconds", "as_of_sequence", "owner", "skipped")
    class MatchedBlocksByTierEntry(_message.Message):
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
    REASON_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    MATCHED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    MATCHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MATCHED_BLOCKS_BY_TIER_FIELD_NUMBER: _ClassVar[int]
    REUSABLE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REUSABLE_IS_BOUND_FIELD_NUMBER: _ClassVar[int]
    REUSE_LIMITS_FIELD_NUMBER: _ClassVar[int]
    SPECULATIVE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    FIRST_MISSING_FIELD_NUMBER: _ClassVar[int]
    HELD_AFTER_MISSING_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    KEY_BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    TRUST_STATE_FIELD_NUMBER: _ClassVar[int]
    TRUST_REASON_FIELD_NUMBER: _ClassVar[int]
    SILENT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    rank: int
    reason: str
    summary: str
    score: float
    matched_blocks: int
    matched_tokens: int
    matched_blocks_by_tier: _containers.ScalarMap[str, int]
    reusable_tokens: int
    reusable_is_bound: bool
    reuse_limits: _containers.RepeatedCompositeFieldContainer[ReuseLimit]
    speculative_blocks: int
    first_missing: MissingBlock
    held_after_missing: int
    groups: _containers.RepeatedCompositeFieldContainer[GroupMatch]
    key_block_size: int
    trust_state: _trust_pb2.TrustState
    trust_reason: str
    silent_seconds: float
    as_of_sequence: int
    owner: str
    skipped: _containers.ScalarMap[str, int]
    def __init__(self, rank: _Optional[int] = ..., reason: _Optional[str] = ..., summary: _Optional[str] = ..., score: _Optional[float] = ..., matched_blocks: _Optional[int] = ..., matched_tokens: _Optional[int] = ..., matched_blocks_by_tier: _Optional[_Mapping[str, int]] = ..., reusable_tokens: _Optional[int] = ..., reusable_is_bound: bool = ..., reuse_limits: _Optional[_Iterable[_Union[ReuseLimit, _Mapping]]] = ..., speculative_blocks: _Optional[int] = ..., first_missing: _Optional[_Union[MissingBlock, _Mapping]] = ..., held_after_missing: _Optional[int] = ..., groups: _Optional[_Iterable[_Union[GroupMatch, _Mapping]]] = ..., key_block_size: _Optional[int] = ..., trust_state: _Optional[_Union[_trust_pb2.TrustState, str]] = ..., trust_reason: _Optional[str] = ..., silent_seconds: _Optional[float] = ..., as_of_sequence: _Optional[int] = ..., owner: _Optional[str] = ..., skipped: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ReuseLimit(_message.Message):
    __slots__ = ("reason", "summary")
    REASON_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    reason: str
    summary: str
    def __init__(self, reason: _Optional[str] = ..., summary: _Optional[str] = ...) -> None: ...

class MissingBlock(_message.Message):
    __slots__ = ("index", "first_token", "end_token", "key", "next_best", "events", "events_searched")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    END_TOKEN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    NEXT_BEST_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_SEARCHED_FIELD_NUMBER: _ClassVar[int]
    index: int
    first_token: int
    end_token: int
    key: int
    next_best: _containers.RepeatedCompositeFieldContainer[OtherHolder]
    events: _containers.RepeatedCompositeFieldContainer[BlockEvent]
    events_searched: int
    def __init__(self, index: _Optional[int] = ..., first_token: _Optional[int] = ..., end_token: _Optional[int] = ..., key: _Optional[int] = ..., next_best: _Optional[_Iterable[_Union[OtherHolder, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[BlockEvent, _Mapping]]] = ..., events_searched: _Optional[int] = ...) -> None: ...

class OtherHolder(_message.Message):
    __slots__ = ("pod", "rank", "matched_blocks", "matched_tokens")
    POD_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    MATCHED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    MATCHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    pod: str
    rank: int
    matched_blocks: int
    matched_tokens: int
    def __init__(self, pod: _Optional[str] = ..., rank: _Optional[int] = ..., matched_blocks: _Optional[int] = ..., matched_tokens: _Optional[int] = ...) -> None: ...

class GroupMatch(_message.Message):
    __slots__ = ("group", "is_main", "leading_blocks", "held_blocks")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    IS_MAIN_FIELD_NUMBER: _ClassVar[int]
    LEADING_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    HELD_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    group: _fleet_pb2.CacheGroup
    is_main: bool
    leading_blocks: int
    held_blocks: int
    def __init__(self, group: _Optional[_Union[_fleet_pb2.CacheGroup, _Mapping]] = ..., is_main: bool = ..., leading_blocks: _Optional[int] = ..., held_blocks: _Optional[int] = ...) -> None: ...

class BlockEvent(_message.Message):
    __slots__ = ("pod", "rank", "type", "tier", "group", "sequence", "age_seconds", "engine_hash", "hashes")
    POD_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_HASH_FIELD_NUMBER: _ClassVar[int]
    HASHES_FIELD_NUMBER: _ClassVar[int]
    pod: str
    rank: int
    type: str
    tier: str
    group: int
    sequence: int
    age_seconds: float
    engine_hash: int
    hashes: int
    def __init__(self, pod: _Optional[str] = ..., rank: _Optional[int] = ..., type: _Optional[str] = ..., tier: _Optional[str] = ..., group: _Optional[int] = ..., sequence: _Optional[int] = ..., age_seconds: _Optional[float] = ..., engine_hash: _Optional[int] = ..., hashes: _Optional[int] = ...) -> None: ...

class Suspect(_message.Message):
    __slots__ = ("kind", "summary", "pods", "pod_count", "blocks", "tokens", "model", "lora_name", "token_id")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    POD_COUNT_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LORA_NAME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    kind: str
    summary: str
    pods: _containers.RepeatedScalarFieldContainer[str]
    pod_count: int
    blocks: int
    tokens: int
    model: str
    lora_name: str
    token_id: int
    def __init__(self, kind: _Optional[str] = ..., summary: _Optional[str] = ..., pods: _Optional[_Iterable[str]] = ..., pod_count: _Optional[int] = ..., blocks: _Optional[int] = ..., tokens: _Optional[int] = ..., model: _Optional[str] = ..., lora_name: _Optional[str] = ..., token_id: _Optional[int] = ...) -> None: ...

class LookupBlocksRequest(_message.Message):
    __slots__ = ("model", "pod", "keys", "engine_hashes")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_HASHES_FIELD_NUMBER: _ClassVar[int]
    model: str
    pod: str
    keys: _containers.RepeatedScalarFieldContainer[int]
    engine_hashes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, model: _Optional[str] = ..., pod: _Optional[str] = ..., keys: _Optional[_Iterable[int]] = ..., engine_hashes: _Optional[_Iterable[int]] = ...) -> None: ...

class LookupBlocksResponse(_message.Message):
    __slots__ = ("blocks", "summary")
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    blocks: _containers.RepeatedCompositeFieldContainer[FoundBlock]
    summary: str
    def __init__(self, blocks: _Optional[_Iterable[_Union[FoundBlock, _Mapping]]] = ..., summary: _Optional[str] = ...) -> None: ...

class FoundBlock(_message.Message):
    __slots__ = ("key", "engine_hash", "meanings", "holders", "holder_count", "events", "summary")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ENGINE_HASH_FIELD_NUMBER: _ClassVar[int]
    MEANINGS_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    HOLDER_COUNT_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    key: int
    engine_hash: int
    meanings: _containers.RepeatedCompositeFieldContainer[HashMeaning]
    holders: _containers.RepeatedCompositeFieldContainer[BlockHolder]
    holder_count: int
    events: _containers.RepeatedCompositeFieldContainer[BlockEvent]
    summary: str
    def __init__(self, key: _Optional[int] = ..., engine_hash: _Optional[int] = ..., meanings: _Optional[_Iterable[_Union[HashMeaning, _Mapping]]] = ..., holders: _Optional[_Iterable[_Union[BlockHolder, _Mapping]]] = ..., holder_count: _Optional[int] = ..., events: _Optional[_Iterable[_Union[BlockEvent, _Mapping]]] = ..., summary: _Optional[str] = ...) -> None: ...

class HashMeaning(_message.Message):
    __slots__ = ("key", "pods", "pod_count")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    POD_COUNT_FIELD_NUMBER: _ClassVar[int]
    key: int
    pods: _containers.RepeatedScalarFieldContainer[str]
    pod_count: int
    def __init__(self, key: _Optional[int] = ..., pods: _Optional[_Iterable[str]] = ..., pod_count: _Optional[int] = ...) -> None: ...

class BlockHolder(_message.Message):
    __slots__ = ("pod", "rank", "model", "tier", "group", "copies", "owner")
    POD_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    pod: str
    rank: int
    model: str
    tier: str
    group: int
    copies: int
    owner: str
    def __init__(self, pod: _Optional[str] = ..., rank: _Optional[int] = ..., model: _Optional[str] = ..., tier: _Optional[str] = ..., group: _Optional[int] = ..., copies: _Optional[int] = ..., owner: _Optional[str] = ...) -> None: ...
