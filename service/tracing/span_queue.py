"""Ended spans, until a thread has sent them. Nothing that runs calls ever waits for it."""

from __future__ import annotations

import random
import threading
from collections import deque
from typing import TYPE_CHECKING

import structlog
from opentelemetry.sdk.trace import SpanProcessor
from typing_extensions import override

from service.tracing.collector import Collector, CollectorError
from service.tracing.span_counts import SpanCounts

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from service.config import TracesSection

_TRIES = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_ABORT_SECONDS = 0.5

_log = structlog.get_logger("kvatlas.service")


class SpanQueue(SpanProcessor):
    """Takes spans from the event loop, and sends them from a thread of its own.

    Args:
        section: limits of the queue, and of the time.
        collector: where spans go.
    """

    def __init__(self, section: TracesSection, collector: Collector) -> None:
        self.counts = SpanCounts()
        self._section = section
        self._collector = collector
        self._spans: deque[ReadableSpan] = deque()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._failing = ""
        self._pause = _FIRST_PAUSE
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    @override
    def on_end(self, span: ReadableSpan) -> None:
        counts = self.counts
        if counts.waiting >= self._section.queue_spans:
            counts.dropped["queue_full"] += 1
            return
        self._spans.append(span)
        counts.waiting = len(self._spans)
        if counts.waiting >= self._section.batch_spans and not self._wake.is_set():
            self._wake.set()

    def stop(self) -> None:
        """Send what waits, for as long as that may take, then give up. Blocks for so long."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(self._section.stop_seconds)
        if self._thread.is_alive():
            self._collector.abort()
            self._thread.join(_ABORT_SECONDS)
        left = len(self._spans)
        if left:
            self.counts.dropped["stopped"] += left
            _log.warning("spans_dropped", reason="stopped", spans=left)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._section.interval_seconds)
            self._wake.clear()
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        """Send all spans; once the service stops, until that fails."""
        while self._spans:
            count = min(len(self._spans), self._section.batch_spans)
            batch = [self._spans[index] for index in range(count)]
            try:
                sent = self._send(batch)
            except Exception:  # noqa: BLE001 - what it is about is lost, the others are not
                _log.exception("spans_not_encoded")
                self.counts.dropped["failed"] += count
                sent = True
            if not sent:
                return
            for _ in batch:
                self._spans.popleft()
            self.counts.waiting = len(self._spans)

    def _send(self, batch: list[ReadableSpan]) -> bool:
        """Send spans, several times if it fails; return whether they are done with."""
        for left in reversed(range(_TRIES)):
            try:
                rejected = self._collector.send(batch)
            except CollectorError as error:
                self._on_failure(error)
                if self._stopping.is_set():
                    return False
                if not error.passes or not left:
                    self.counts.dropped[error.reason] += len(batch)
                if not error.passes:
                    return True
                self._rest()
            else:
                self._on_success(len(batch), rejected)
                return True
        return True

    def _rest(self) -> None:
        self._stopping.wait(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _on_failure(self, error: CollectorError) -> None:
        if self._failing != error.reason:
            _log.warning("traces_failing", reason=error.reason, detail=str(error))
        self._failing = error.reason

    def _on_success(self, spans: int, rejected: int) -> None:
        if self._failing:
            _log.info("traces_exported_again")
        self._failing, self._pause = "", _FIRST_PAUSE
        self.counts.exported += spans - rejected
        if rejected:
            self.counts.dropped["rejected"] += rejected
