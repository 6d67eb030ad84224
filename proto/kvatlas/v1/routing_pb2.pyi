from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PodRank(_message.Message):
    __slots__ = ("pod", "rank")
    POD_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    pod: str
    rank: int
    def __init__(self, pod: _Optional[str] = ..., rank: _Optional[int] = ...) -> None: ...

class RecordRoutingRequest(_message.Message):
    __slots__ = ("handle", "pod", "rank", "ttl_ms")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    handle: bytes
    pod: str
    rank: int
    ttl_ms: int
    def __init__(self, handle: _Optional[bytes] = ..., pod: _Optional[str] = ..., rank: _Optional[int] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class RecordRoutingResponse(_message.Message):
    __slots__ = ("speculative_blocks", "promised_tokens", "forwarded")
    SPECULATIVE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    PROMISED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FORWARDED_FIELD_NUMBER: _ClassVar[int]
    speculative_blocks: int
    promised_tokens: int
    forwarded: bool
    def __init__(self, speculative_blocks: _Optional[int] = ..., promised_tokens: _Optional[int] = ..., forwarded: bool = ...) -> None: ...

class RecordRoutingsRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RecordRoutingRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RecordRoutingRequest, _Mapping]]] = ...) -> None: ...

class RecordRoutingsResponse(_message.Message):
    __slots__ = ("responses", "errors")
    class ErrorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: ScoreError
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[ScoreError, _Mapping]] = ...) -> None: ...
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[RecordRoutingResponse]
    errors: _containers.MessageMap[int, ScoreError]
    def __init__(self, responses: _Optional[_Iterable[_Union[RecordRoutingResponse, _Mapping]]] = ..., errors: _Optional[_Mapping[int, ScoreError]] = ...) -> None: ...

class ReportOutcomeRequest(_message.Message):
    __slots__ = ("handle", "cached_tokens", "cached_tokens_by_source", "pod", "rank")
    class CachedTokensBySourceEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_BY_SOURCE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    handle: bytes
    cached_tokens: int
    cached_tokens_by_source: _containers.ScalarMap[str, int]
    pod: str
    rank: int
    def __init__(self, handle: _Optional[bytes] = ..., cached_tokens: _Optional[int] = ..., cached_tokens_by_source: _Optional[_Mapping[str, int]] = ..., pod: _Optional[str] = ..., rank: _Optional[int] = ...) -> None: ...

class ReportOutcomeResponse(_message.Message):
    __slots__ = ("promised_tokens", "forwarded")
    PROMISED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FORWARDED_FIELD_NUMBER: _ClassVar[int]
    promised_tokens: int
    forwarded: bool
    def __init__(self, promised_tokens: _Optional[int] = ..., forwarded: bool = ...) -> None: ...

class ReportOutcomesRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[ReportOutcomeRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[ReportOutcomeRequest, _Mapping]]] = ...) -> None: ...

class ReportOutcomesResponse(_message.Message):
    __slots__ = ("responses", "errors")
    class ErrorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: ScoreError
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[ScoreError, _Mapping]] = ...) -> None: ...
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[ReportOutcomeResponse]
    errors: _containers.MessageMap[int, ScoreError]
    def __init__(self, responses: _Optional[_Iterable[_Union[ReportOutcomeResponse, _Mapping]]] = ..., errors: _Optional[_Mapping[int, ScoreError]] = ...) -> None: ...

class ScoreError(_message.Message):
    __slots__ = ("code", "message", "reason", "limit")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    reason: str
    limit: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reason: _Optional[str] = ..., limit: _Optional[str] = ...) -> None: ...
