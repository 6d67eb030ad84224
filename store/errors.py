"""The error of the store, and what the client library raises translated to it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from redis import exceptions

if TYPE_CHECKING:
    from collections.abc import Iterator

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
_RESHARDING = ("non local key", "TRYAGAIN", "CLUSTERDOWN", "MOVED ", "ASK ")
_ANSWERS = {
    "OOM": "full",
    "READONLY": "read_only",
    "MASTERDOWN": "read_only",
    "MISCONF": "read_only",
}


class StoreError(Exception):
    """The store did not do what it was asked, or did not confirm it."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        """unreachable, timeout, full, read_only, loading, resharding, refused or malformed."""


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Raises StoreError of kind malformed for whatever goes wrong while a value is decoded."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:  # a decoder fails in any way on a malformed value
        detail = f"the store holds a malformed {what}: {error!r}"
        raise StoreError("malformed", detail) from error


def store_error(error: Exception) -> StoreError:
    """Translate an error of the client library."""
    detail = str(error)
    if any(word in detail for word in _RESHARDING):
        return StoreError("resharding", detail)
    for word, kind in _ANSWERS.items():
        if detail.startswith(word) or f"{word} " in detail:
            return StoreError(kind, detail)
    for error_type, kind in _KINDS:
        if isinstance(error, error_type):
            return StoreError(kind, detail or type(error).__name__)
    return StoreError("unreachable", detail)  # the client itself failed on a lost connection
