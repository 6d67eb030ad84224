"""What a caller is told of an error: a status, a short plain text, and a reason for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog
from google.rpc import error_details_pb2, status_pb2

from service.rpc.errors import KNOWN_ERRORS, LimitError, kind_of

if TYPE_CHECKING:
    import grpc

_log = structlog.get_logger("kvatlas.service")

DOMAIN = "kvatlas"
"""The domain of the reasons in `google.rpc.ErrorInfo`."""
_MAX_TEXT = 1024
_DETAILS_KEY = "grpc-status-details-bin"


class Refusal(NamedTuple):
    """The end of a call that failed."""

    status: grpc.StatusCode
    text: str
    """At most 1 KiB of printable characters."""
    reason: str
    limit: str
    """The setting whose limit is exceeded; empty if there is none."""

    @property
    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        """The trailing metadata that carries the reason: a `google.rpc.Status`."""
        code, _ = self.status.value
        status = status_pb2.Status(code=code, message=self.text)
        fields = {"limit": f"limits.{self.limit}"} if self.limit else {}
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=fields)
        status.details.add().Pack(info)
        return ((_DETAILS_KEY, status.SerializeToString()),)


def refusal_of(error: Exception, method: str) -> Refusal:
    """Return what the caller of `method` is told of `error`; logs unknown errors."""
    status, reason = kind_of(error)
    if not isinstance(error, KNOWN_ERRORS):
        _log.error("call_failed", method=method, exc_info=error)
        return Refusal(status, "internal error; see the service's log", reason, "")
    limit = error.limit if isinstance(error, LimitError) else ""
    return Refusal(status, plain(str(error)), reason, limit)


def plain(text: str) -> str:
    """Return the text, cut to 1 KiB, with escapes in the place of what cannot be printed."""
    shown = text[:_MAX_TEXT]
    if not shown.isprintable():
        shown = "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode() for each in shown
        )
    encoded = shown.encode()
    if len(text) <= _MAX_TEXT and len(encoded) <= _MAX_TEXT:
        return shown
    return encoded[: _MAX_TEXT - 3].decode(errors="ignore") + "..."
