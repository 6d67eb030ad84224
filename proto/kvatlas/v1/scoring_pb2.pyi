from kvatlas.v1 import routing_pb2 as _routing_pb2
from kvatlas.v1 import trust_pb2 as _trust_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScoreStreamRequest(_message.Message):
    __slots__ = ("id", "score", "cancel", "record_routing", "report_outcome", "timeout_ms", "traceparent", "tracestate")
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    RECORD_ROUTING_FIELD_NUMBER: _ClassVar[int]
    REPORT_OUTCOME_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    id: int
    score: ScoreRequest
    cancel: bool
    record_routing: _routing_pb2.RecordRoutingRequest
    report_outcome: _routing_pb2.ReportOutcomeRequest
    timeout_ms: int
    traceparent: str
    tracestate: str
    def __init__(self, id: _Optional[int] = ..., score: _Optional[_Union[ScoreRequest, _Mapping]] = ..., cancel: bool = ..., record_routing: _Optional[_Union[_routing_pb2.RecordRoutingRequest, _Mapping]] = ..., report_outcome: _Optional[_Union[_routing_pb2.ReportOutcomeRequest, _Mapping]] = ..., timeout_ms: _Optional[int] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ...) -> None: ...

class ScoreStreamResponse(_message.Message):
    __slots__ = ("id", "response", "error", "routing", "outcome")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ROUTING_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    id: int
    response: ScoreResponse
    error: _routing_pb2.ScoreError
    routing: _routing_pb2.RecordRoutingResponse
    outcome: _routing_pb2.ReportOutcomeResponse
    def __init__(self, id: _Optional[int] = ..., response: _Optional[_Union[ScoreResponse, _Mapping]] = ..., error: _Optional[_Union[_routing_pb2.ScoreError, _Mapping]] = ..., routing: _Optional[_Union[_routing_pb2.RecordRoutingResponse, _Mapping]] = ..., outcome: _Optional[_Union[_routing_pb2.ReportOutcomeResponse, _Mapping]] = ...) -> None: ...

class ScoreManyRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[ScoreRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[ScoreRequest, _Mapping]]] = ...) -> None: ...

class ScoreManyResponse(_message.Message):
    __slots__ = ("responses", "errors")
    class ErrorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: _routing_pb2.ScoreError
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[_routing_pb2.ScoreError, _Mapping]] = ...) -> None: ...
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[ScoreResponse]
    errors: _containers.MessageMap[int, _routing_pb2.ScoreError]
    def __init__(self, responses: _Optional[_Iterable[_Union[ScoreResponse, _Mapping]]] = ..., errors: _Optional[_Mapping[int, _routing_pb2.ScoreError]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("model", "prompt", "pods", "lora_name", "cache_salt", "only_holders", "max_pods", "by_rank", "ranks", "tier_weights", "budget_ms", "want_handle")
    class TierWeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    LORA_NAME_FIELD_NUMBER: _ClassVar[int]
    CACHE_SALT_FIELD_NUMBER: _ClassVar[int]
    ONLY_HOLDERS_FIELD_NUMBER: _ClassVar[int]
    MAX_PODS_FIELD_NUMBER: _ClassVar[int]
    BY_RANK_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    TIER_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    WANT_HANDLE_FIELD_NUMBER: _ClassVar[int]
    model: str
    prompt: Prompt
    pods: _containers.RepeatedScalarFieldContainer[str]
    lora_name: str
    cache_salt: str
    only_holders: bool
    max_pods: int
    by_rank: bool
    ranks: _containers.RepeatedCompositeFieldContainer[_routing_pb2.PodRank]
    tier_weights: _containers.ScalarMap[str, float]
    budget_ms: int
    want_handle: bool
    def __init__(self, model: _Optional[str] = ..., prompt: _Optional[_Union[Prompt, _Mapping]] = ..., pods: _Optional[_Iterable[str]] = ..., lora_name: _Optional[str] = ..., cache_salt: _Optional[str] = ..., only_holders: bool = ..., max_pods: _Optional[int] = ..., by_rank: bool = ..., ranks: _Optional[_Iterable[_Union[_routing_pb2.PodRank, _Mapping]]] = ..., tier_weights: _Optional[_Mapping[str, float]] = ..., budget_ms: _Optional[int] = ..., want_handle: bool = ...) -> None: ...

class Prompt(_message.Message):
    __slots__ = ("text", "token_ids", "packed_token_ids", "chat_completion", "completion", "messages", "multimodal_items")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    PACKED_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    CHAT_COMPLETION_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MULTIMODAL_ITEMS_FIELD_NUMBER: _ClassVar[int]
    text: str
    token_ids: TokenIds
    packed_token_ids: bytes
    chat_completion: str
    completion: str
    messages: str
    multimodal_items: _containers.RepeatedCompositeFieldContainer[MultimodalItem]
    def __init__(self, text: _Optional[str] = ..., token_ids: _Optional[_Union[TokenIds, _Mapping]] = ..., packed_token_ids: _Optional[bytes] = ..., chat_completion: _Optional[str] = ..., completion: _Optional[str] = ..., messages: _Optional[str] = ..., multimodal_items: _Optional[_Iterable[_Union[MultimodalItem, _Mapping]]] = ...) -> None: ...

class TokenIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class MultimodalItem(_message.Message):
    __slots__ = ("hash", "offset", "length")
    HASH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    hash: str
    offset: int
    length: int
    def __init__(self, hash: _Optional[str] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("pods", "unknown_pods", "total_blocks", "total_tokens", "block_size", "copy_behind_seconds", "unknown_ranks", "best", "handle", "partial")
    PODS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_PODS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    COPY_BEHIND_SECONDS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_RANKS_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    pods: _containers.RepeatedCompositeFieldContainer[PodScore]
    unknown_pods: _containers.RepeatedScalarFieldContainer[str]
    total_blocks: int
    total_tokens: int
    block_size: int
    copy_behind_seconds: float
    unknown_ranks: _containers.RepeatedCompositeFieldContainer[_routing_pb2.PodRank]
    best: _containers.RepeatedScalarFieldContainer[int]
    handle: bytes
    partial: PartialAnswer
    def __init__(self, pods: _Optional[_Iterable[_Union[PodScore, _Mapping]]] = ..., unknown_pods: _Optional[_Iterable[str]] = ..., total_blocks: _Optional[int] = ..., total_tokens: _Optional[int] = ..., block_size: _Optional[int] = ..., copy_behind_seconds: _Optional[float] = ..., unknown_ranks: _Optional[_Iterable[_Union[_routing_pb2.PodRank, _Mapping]]] = ..., best: _Optional[_Iterable[int]] = ..., handle: _Optional[bytes] = ..., partial: _Optional[_Union[PartialAnswer, _Mapping]] = ...) -> None: ...

class PartialAnswer(_message.Message):
    __slots__ = ("step", "scored_tokens")
    class Step(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STEP_UNSPECIFIED: _ClassVar[PartialAnswer.Step]
        STEP_TOKENIZE: _ClassVar[PartialAnswer.Step]
        STEP_KEYS: _ClassVar[PartialAnswer.Step]
        STEP_STORE: _ClassVar[PartialAnswer.Step]
    STEP_UNSPECIFIED: PartialAnswer.Step
    STEP_TOKENIZE: PartialAnswer.Step
    STEP_KEYS: PartialAnswer.Step
    STEP_STORE: PartialAnswer.Step
    STEP_FIELD_NUMBER: _ClassVar[int]
    SCORED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    step: PartialAnswer.Step
    scored_tokens: int
    def __init__(self, step: _Optional[_Union[PartialAnswer.Step, str]] = ..., scored_tokens: _Optional[int] = ...) -> None: ...

class PodScore(_message.Message):
    __slots__ = ("pod", "score", "matched_blocks", "matched_tokens", "matched_blocks_by_tier", "rank", "trust_state", "trust_reason", "silent_seconds", "as_of_sequence", "reusable_tokens", "reusable_is_bound", "normalized_score", "speculative_blocks")
    class MatchedBlocksByTierEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    POD_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    MATCHED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    MATCHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MATCHED_BLOCKS_BY_TIER_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    TRUST_STATE_FIELD_NUMBER: _ClassVar[int]
    TRUST_REASON_FIELD_NUMBER: _ClassVar[int]
    SILENT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REUSABLE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REUSABLE_IS_BOUND_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_SCORE_FIELD_NUMBER: _ClassVar[int]
    SPECULATIVE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    pod: str
    score: float
    matched_blocks: int
    matched_tokens: int
    matched_blocks_by_tier: _containers.ScalarMap[str, int]
    rank: int
    trust_state: _trust_pb2.TrustState
    trust_reason: str
    silent_seconds: float
    as_of_sequence: int
    reusable_tokens: int
    reusable_is_bound: bool
    normalized_score: float
    speculative_blocks: int
    def __init__(self, pod: _Optional[str] = ..., score: _Optional[float] = ..., matched_blocks: _Optional[int] = ..., matched_tokens: _Optional[int] = ..., matched_blocks_by_tier: _Optional[_Mapping[str, int]] = ..., rank: _Optional[int] = ..., trust_state: _Optional[_Union[_trust_pb2.TrustState, str]] = ..., trust_reason: _Optional[str] = ..., silent_seconds: _Optional[float] = ..., as_of_sequence: _Optional[int] = ..., reusable_tokens: _Optional[int] = ..., reusable_is_bound: bool = ..., normalized_score: _Optional[float] = ..., speculative_blocks: _Optional[int] = ...) -> None: ...
