from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListDiscoveredPodsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDiscoveredPodsResponse(_message.Message):
    __slots__ = ("pods", "discoveries")
    PODS_FIELD_NUMBER: _ClassVar[int]
    DISCOVERIES_FIELD_NUMBER: _ClassVar[int]
    pods: _containers.RepeatedCompositeFieldContainer[DiscoveredPod]
    discoveries: _containers.RepeatedCompositeFieldContainer[Discovery]
    def __init__(self, pods: _Optional[_Iterable[_Union[DiscoveredPod, _Mapping]]] = ..., discoveries: _Optional[_Iterable[_Union[Discovery, _Mapping]]] = ...) -> None: ...

class Discovery(_message.Message):
    __slots__ = ("name", "pods")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    name: str
    pods: int
    def __init__(self, name: _Optional[str] = ..., pods: _Optional[int] = ...) -> None: ...

class DiscoveredPod(_message.Message):
    __slots__ = ("pod", "url", "discovered_by", "ready", "name", "node", "roles", "engine", "failure")
    POD_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    DISCOVERED_BY_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    pod: str
    url: str
    discovered_by: _containers.RepeatedScalarFieldContainer[str]
    ready: bool
    name: str
    node: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    engine: EngineInfo
    failure: str
    def __init__(self, pod: _Optional[str] = ..., url: _Optional[str] = ..., discovered_by: _Optional[_Iterable[str]] = ..., ready: bool = ..., name: _Optional[str] = ..., node: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., engine: _Optional[_Union[EngineInfo, _Mapping]] = ..., failure: _Optional[str] = ...) -> None: ...

class EngineInfo(_message.Message):
    __slots__ = ("engine", "version", "models", "adapters", "block_size", "publishers")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    PUBLISHERS_FIELD_NUMBER: _ClassVar[int]
    engine: str
    version: str
    models: _containers.RepeatedScalarFieldContainer[str]
    adapters: _containers.RepeatedScalarFieldContainer[str]
    block_size: int
    publishers: _containers.RepeatedCompositeFieldContainer[EventPublisher]
    def __init__(self, engine: _Optional[str] = ..., version: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ..., adapters: _Optional[_Iterable[str]] = ..., block_size: _Optional[int] = ..., publishers: _Optional[_Iterable[_Union[EventPublisher, _Mapping]]] = ...) -> None: ...

class EventPublisher(_message.Message):
    __slots__ = ("rank", "endpoint", "replay_endpoint", "topic")
    RANK_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    REPLAY_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    rank: int
    endpoint: str
    replay_endpoint: str
    topic: str
    def __init__(self, rank: _Optional[int] = ..., endpoint: _Optional[str] = ..., replay_endpoint: _Optional[str] = ..., topic: _Optional[str] = ...) -> None: ...

class RegisterPodRequest(_message.Message):
    __slots__ = ("url", "model", "roles", "node", "name", "unready", "ttl_seconds")
    URL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UNREADY_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    url: str
    model: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    node: str
    name: str
    unready: bool
    ttl_seconds: float
    def __init__(self, url: _Optional[str] = ..., model: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., node: _Optional[str] = ..., name: _Optional[str] = ..., unready: bool = ..., ttl_seconds: _Optional[float] = ...) -> None: ...

class RegisterPodResponse(_message.Message):
    __slots__ = ("pod",)
    POD_FIELD_NUMBER: _ClassVar[int]
    pod: str
    def __init__(self, pod: _Optional[str] = ...) -> None: ...

class UnregisterPodRequest(_message.Message):
    __slots__ = ("pod",)
    POD_FIELD_NUMBER: _ClassVar[int]
    pod: str
    def __init__(self, pod: _Optional[str] = ...) -> None: ...

class UnregisterPodResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
