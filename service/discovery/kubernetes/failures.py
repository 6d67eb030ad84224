"""What can go wrong between kvatlas and an API server, by reason."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a list or a watch failed: for logs and metrics."""

    UNREACHABLE = "unreachable"
    TLS = "tls"
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"
    """The connection ended before the answer did."""
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    GONE = "gone"
    """The resource version is too old to go on from: the collection is listed anew."""
    THROTTLED = "throttled"
    SERVER_ERROR = "server_error"
    REFUSED = "refused"
    """Any other status than 200."""
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    SHORT_WATCH = "short_watch"
    """The watch ended at once, without a word."""


REASONS = {
    401: Reason.UNAUTHORIZED,
    403: Reason.FORBIDDEN,
    404: Reason.NOT_FOUND,
    410: Reason.GONE,
    429: Reason.THROTTLED,
}
"""Of HTTP status codes; see `reason_of` for the others."""


def reason_of(status: int) -> Reason:
    """The reason that an HTTP status, or the code of a Status object, stands for."""
    return REASONS.get(status, Reason.SERVER_ERROR if status >= 500 else Reason.REFUSED)


class ApiFailure(Exception):  # noqa: N818 - it is raised for what a server does, not for a mistake
    """A list or a watch that failed.

    Attributes:
        reason: why.
        retry_after: how long the server wants to be left alone, in seconds.
        is_stale: whether the copy may have missed something, and must be listed anew.
    """

    def __init__(
        self, reason: Reason, detail: str, retry_after: float = 0.0, *, is_stale: bool = False
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after
        self.is_stale = is_stale or reason is Reason.GONE
