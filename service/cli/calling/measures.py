"""What the service measures of itself, from its metrics."""

from __future__ import annotations

import http.client
import math
import time
from collections import Counter, defaultdict
from contextlib import closing
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

_SCORES = {"Score", "ScoreMany", "GetPodScores"}
_MOST_PROCESSES = 64  # as may be configured
_LARGEST = 64 * 1024 * 1024  # bytes of metrics that are read


class MeasuresError(Exception):
    """The metrics cannot be read."""


class Histogram(NamedTuple):
    """How often what was measured was at most so much."""

    counts: Counter[float]
    """Upper bound of a bucket, in seconds -> number of measurements up to it."""

    def since(self, earlier: Histogram) -> Histogram:
        """What has been measured since then."""
        counts = {bound: count - earlier.counts[bound] for bound, count in self.counts.items()}
        return Histogram(Counter(counts))

    def plus(self, other: Histogram) -> Histogram:
        """What both have measured."""
        counts = Counter(self.counts)
        counts.update(other.counts)
        return Histogram(counts)

    @property
    def total(self) -> int:
        """Number of measurements."""
        return self.counts[math.inf]

    def quantile(self, share: float) -> float | None:
        """The value that this share of the measurements does not exceed, in seconds.

        Within a bucket they are taken to be spread evenly. None: nothing was measured, or the value
        is beyond the last bucket.
        """
        wanted, below, before = share * self.total, 0.0, 0
        for bound, count in sorted(self.counts.items()):
            if count >= wanted and count > before:
                if math.isinf(bound):
                    return None
                return min(bound, below + (bound - below) * (wanted - before) / (count - before))
            below, before = bound, count
        return None


class Measures(NamedTuple):
    """The metrics at one moment. Counters count from the start of the service."""

    read_at: float
    """By the monotonic clock, in seconds."""
    version: str
    frames: float
    lag: Histogram
    scores: Histogram
    scores_under_way: float
    index_bytes: float
    index_limit_bytes: float
    processes: int
    """That serve as one."""

    def plus(self, other: Measures) -> Measures:
        """The measures of two processes together."""
        return Measures(
            self.read_at,
            self.version,
            self.frames + other.frames,
            self.lag.plus(other.lag),
            self.scores.plus(other.scores),
            self.scores_under_way + other.scores_under_way,
            self.index_bytes + other.index_bytes,
            self.index_limit_bytes + other.index_limit_bytes,
            self.processes,
        )


def read_measures(address: str, timeout: float) -> Measures:
    """Read the metrics at host:port, and those of all processes that serve with that first one.

    Raises MeasuresError.

    timeout: in seconds, for each step of each process.
    """
    measures = process_measures(address, timeout)
    for number in range(1, measures.processes):
        measures = measures.plus(process_measures(address, timeout, number))
    return measures


def process_measures(address: str, timeout: float, number: int = 0) -> Measures:
    """Read the metrics of one process. Raises MeasuresError.

    Args:
        address: host:port of the first process.
        timeout: in seconds, for each step.
        number: of the process; each has the next port.
    """
    try:
        connection = http.client.HTTPConnection(address, timeout=timeout)
        connection.port += number
        with closing(connection):
            return _measures(_page(connection))
    except (OSError, OverflowError, ValueError, http.client.HTTPException) as error:
        address += f", process {number}" if number else ""
        raise MeasuresError(f"no metrics from {address} (see --metrics): {error}") from None


def _page(connection: http.client.HTTPConnection) -> str:
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    if response.status != http.client.OK:
        raise ValueError(f"status {response.status}")
    return response.read(_LARGEST).decode()


def _measures(text: str) -> Measures:
    numbers: defaultdict[str, float] = defaultdict(float)
    lag, scores = Histogram(Counter()), Histogram(Counter())
    version = ""
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            if name == "kvatlas_build_info":
                version = labels.get("version", "")
            elif name == "kvatlas_event_lag_seconds_bucket":
                lag.counts[float(labels["le"])] += int(value)
            elif _is_score(name, labels):
                scores.counts[float(labels["le"])] += int(value)
            elif name == "kvatlas_rpc_under_way":
                numbers[name] += value if labels.get("method") in _SCORES else 0
            elif not labels:
                numbers[name] += value
    under_way = numbers["kvatlas_rpc_under_way"] + numbers["kvatlas_stream_requests_under_way"]
    return Measures(
        time.monotonic(),
        version,
        numbers["kvatlas_frames_total"],
        lag,
        scores,
        under_way,
        numbers["kvatlas_index_bytes"],
        numbers["kvatlas_index_limit_bytes"],
        min(max(1, int(numbers["kvatlas_processes"])), _MOST_PROCESSES),
    )


def _is_score(name: str, labels: dict[str, str]) -> bool:
    if name == "grpc_server_handling_seconds_bucket":
        return labels.get("grpc_method") in _SCORES
    return name == "kvatlas_stream_request_duration_seconds_bucket"
