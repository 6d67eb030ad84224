"""What can go wrong between us and the store."""

from __future__ import annotations

from redis import exceptions

_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.TimeoutError, "timeout"),
    (TimeoutError, "timeout"),
    (exceptions.OutOfMemoryError, "full"),
    (exceptions.ReadOnlyError, "read_only"),
    (exceptions.BusyLoadingError, "loading"),
    (exceptions.AuthenticationError, "refused"),
    (exceptions.ConnectionError, "unreachable"),
    (exceptions.ClusterDownError, "unreachable"),
    (exceptions.RedisClusterException, "unreachable"),
    (exceptions.ResponseError, "refused"),
    (exceptions.RedisError, "unreachable"),
    (OSError, "unreachable"),
)
_MOVING = ("non local key", "TRYAGAIN", "CLUSTERDOWN", "MOVED ", "ASK ")
_WORDS = {"OOM": "full", "READONLY": "read_only", "MASTERDOWN": "read_only", "MISCONF": "read_only"}


class StoreError(Exception):
    """The store did not do it, or did not say so.

    kind: in a word: unreachable, timeout, full, read_only, loading, resharding or refused.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def store_error(error: Exception) -> StoreError:
    """The error of the client library, in our words."""
    said = str(error)
    if any(word in said for word in _MOVING):
        return StoreError("resharding", said)
    for word, kind in _WORDS.items():
        if said.startswith(word) or f"{word} " in said:
            return StoreError(kind, said)
    for of, kind in _KINDS:
        if isinstance(error, of):
            return StoreError(kind, said or type(error).__name__)
    return StoreError("unreachable", said)  # the client itself has tripped over a connection
