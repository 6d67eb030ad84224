"""The error of the store, what the client library raises translated to it, and how often it was."""

from __future__ import annotations

import ssl
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from redis import exceptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
_MALFORMED = ("MALFORMED ", "WRONGTYPE")  # what our scripts say, and the server itself
_REFUSALS = (  # as the client library tells them where it wraps the server's answer
    *("invalid username-password", "WRONGPASS", "NOAUTH", "NOPERM", "Authentication required"),
    *("Cluster mode is not enabled", "Protocol error, got"),
)
_RESHARDING = ("non local key", "TRYAGAIN", "CLUSTERDOWN", "MOVED ", "ASK ")
_ANSWERS = {
    "OOM": "full",
    "READONLY": "read_only",
    "MASTERDOWN": "read_only",
    "MISCONF": "read_only",
    "BUSY": "loading",
}


_SHOWN_SECONDS = 5.0  # a failure is shown for so long
_MAX_DETAIL = 1000  # characters


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
        detail = f"the store holds a malformed {what}: {error!r}"[:_MAX_DETAIL]
        raise StoreError("malformed", detail) from error


def store_error(error: Exception) -> StoreError:
    """Translate an error of the client library."""
    detail = str(error)[:_MAX_DETAIL]
    if any(word in detail for word in _MALFORMED):
        return StoreError("malformed", f"the store holds what no replica writes: {detail}")
    if any(word in detail for word in _RESHARDING):
        return StoreError("resharding", detail)
    if _is_tls_refusal(error) or any(text in detail for text in _REFUSALS):
        return StoreError("refused", detail)
    for word, kind in _ANSWERS.items():
        if detail.startswith(word) or f"{word} " in detail:
            return StoreError(kind, detail)
    for error_type, kind in _KINDS:
        if isinstance(error, error_type):
            return StoreError(kind, detail or type(error).__name__)
    return StoreError("unreachable", detail)  # the client itself failed on a lost connection


def _is_tls_refusal(error: BaseException | None) -> bool:
    """Whether one side did not accept the other's certificate, or speaks another protocol."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
        error = error.__cause__ or error.__context__
    return False


class Failures(Counter[str]):
    """Failures by kind."""

    _newest: tuple[float, str] = (float("-inf"), "")

    def record(self, error: StoreError) -> bool:
        """Count a failure; return whether it is the first of its kind for a while."""
        is_new = self.current(time.monotonic()) != error.kind
        self[error.kind] += 1
        self._newest = time.monotonic(), error.kind
        return is_new

    def current(self, now: float) -> str:
        """Return the kind of the newest failure; empty if it is some seconds old."""
        failed_at, kind = self._newest
        return kind if now - failed_at < _SHOWN_SECONDS else ""


def newest_failure(all_failures: Iterable[Failures], now: float) -> str:
    """Return the kind of a failure of the last seconds; empty if there is none."""
    return next((kind for failures in all_failures if (kind := failures.current(now))), "")
