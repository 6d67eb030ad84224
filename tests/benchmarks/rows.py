"""Timing and printing, shared by the benchmarks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROUNDS = 9


def median_us(work: Callable[[], object], calls: int) -> float:
    """Median over the rounds of the microseconds one of `calls` takes, after a warm-up round."""
    work()
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        rounds.append((time.perf_counter() - start) / calls * 1e6)
    return statistics.median(rounds)


def row(name: str, ours: str, other: str, ratio: float | None, target: str) -> None:
    """Print one figure beside what it is measured against."""
    shown = "" if ratio is None else f"{ratio:.3f}"
    print(f"{name:<46} {ours:>16}  {other:<42} {shown:>8}  {target}", flush=True)


def header() -> None:
    """Print the columns' names."""
    print(f"{'what':<46} {'measured':>16}  {'against, in the same run':<42} {'ratio':>8}  target")


def cpu_seconds(process_id: int) -> float:
    """User and system time a process has used, from the kernel's accounting."""
    fields = Path(f"/proc/{process_id}/schedstat").read_text().split()
    threads = Path(f"/proc/{process_id}/task").iterdir()
    total = sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)
    return max(total, int(fields[0])) / 1e9


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
