"""Frames and connections that were dropped before they reached a stream, by reason."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import structlog

from kvevents.joining.admission import AdmissionError
from kvevents.source import UnknownPublisherError
from kvevents.transport import FrameError
from kvevents.wire import PayloadError

if TYPE_CHECKING:
    from kvevents.source import Source

_EXPECTED = (FrameError, PayloadError, UnknownPublisherError, AdmissionError)

_log = structlog.get_logger("kvatlas.kvevents")


class Skipped:
    """Counts what was skipped, and warns once of each reason at each source.

    Attributes:
        counts: how much was skipped, by reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._warned: set[tuple[str, str]] = set()

    def add(self, reason: str, source: Source, detail: str, count: int = 1) -> None:
        """Count what was skipped."""
        self.counts[reason] += count
        if (reason, source.endpoint) not in self._warned:
            self._warned.add((reason, source.endpoint))
            _log.warning("frame_skipped", reason=reason, endpoint=source.endpoint, detail=detail)

    def add_error(self, error: Exception, source: Source) -> None:
        """Count a frame that could not be handled."""
        if isinstance(error, _EXPECTED):
            self.add(error.reason, source, str(error))
        else:
            self.counts["internal_error"] += 1
            _log.error("frame_not_applied", endpoint=source.endpoint, exc_info=error)
