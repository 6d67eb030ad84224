"""Entries of the routing journal: what replicas tell each other about routed requests."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from store.errors import decoding
from store.records import checks as check
from store.records.checks import pack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from indexer import Worker

MAX_ENTRY_BYTES = 1024**2
_MAX_MESSAGES = 4096
_MAX_HANDLE = 64
_MAX_SOURCES = 16
_MAX_SECONDS = 86_400
_MAX_BLOCK = 65_536  # tokens
_MAX_KEY_SIZES = 64


class SharedDecision(NamedTuple):
    """A recorded routing, whose blocks every replica lets be speculative."""

    handle: bytes
    worker: Worker
    model: str
    block_size: int
    keys: Mapping[int, array[int]]
    """Tokens of a block -> the prompt's block keys; at least for `block_size`."""
    seconds: float


class ForwardedRouting(NamedTuple):
    """A routing for the replica that gave the handle."""

    handle: bytes
    pod: str
    rank: int | None
    seconds: float


class ForwardedOutcome(NamedTuple):
    """An outcome for the replica that gave the handle."""

    handle: bytes
    pod: str
    rank: int | None
    cached_tokens: int
    by_source: Mapping[str, int]


RoutingMessage: TypeAlias = SharedDecision | ForwardedRouting | ForwardedOutcome


class RoutingEntry(NamedTuple):
    """What one replica has told all others at once."""

    origin: bytes
    """The process that has written it."""
    number: int
    """Counts the entries of the process, from 0."""
    messages: Sequence[RoutingMessage]

    def pack(self) -> bytes:
        """Return what `unpack` takes."""
        return pack([self.origin, self.number, [_packed(each) for each in self.messages]])

    @classmethod
    def unpack(cls, blob: bytes) -> RoutingEntry:
        """Return the entry that was packed."""
        with decoding("routing entry"):
            origin, number, messages = check.items(check.unpack(blob, MAX_ENTRY_BYTES), 3)
            unpacked = [
                _message(check.items(each, 7)) for each in check.items(messages, _MAX_MESSAGES)
            ]
            return cls(_handle(origin), check.whole(number), unpacked)


def _packed(message: RoutingMessage) -> list[Any]:
    match message:
        case SharedDecision(handle, worker, model, block_size, keys, seconds):
            columns = {size: some.tobytes() for size, some in keys.items()}
            return ["decision", handle, tuple(worker), model, block_size, columns, seconds]
        case ForwardedRouting():
            return ["routing", *message]
        case ForwardedOutcome():
            return ["outcome", *message]


def _message(values: list[Any]) -> RoutingMessage:
    match values:
        case ["decision", handle, worker, model, block_size, columns, seconds]:
            keys = check.mapping(columns, _MAX_KEY_SIZES, _block, lambda some: array("Q", some))
            if not keys.get(block_size):
                raise ValueError("a decision without keys")
            blocks = len(keys[block_size])
            if any(
                block_size % size or len(some) * size < blocks * block_size
                for size, some in keys.items()
            ):
                raise ValueError("keys of different prompts")
            named = check.worker(worker), check.text(model), _block(block_size)
            return SharedDecision(_handle(handle), *named, keys, _seconds(seconds))
        case ["routing", handle, pod, rank, seconds]:
            return ForwardedRouting(
                _handle(handle), check.text(pod), _rank(rank), _seconds(seconds)
            )
        case ["outcome", handle, pod, rank, cached, by_source]:
            tokens = check.mapping(by_source, _MAX_SOURCES, check.text, check.whole)
            return ForwardedOutcome(
                _handle(handle), check.text(pod), _rank(rank), check.whole(cached), tokens
            )
        case _:
            raise ValueError("not a message about a routing")


def _handle(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) > _MAX_HANDLE:
        raise ValueError("not a handle")
    return value


def _block(value: Any) -> int:
    return check.whole(value, _MAX_BLOCK, 1)


def _rank(value: Any) -> int | None:
    return None if value is None else check.whole(value, 2**31 - 1)


def _seconds(value: Any) -> float:
    if type(value) not in {int, float} or not 0 <= value <= _MAX_SECONDS:
        raise ValueError("not a number of seconds")
    return float(value)
