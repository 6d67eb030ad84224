"""`make rollout`: three replicas are updated one by one under load, then one of them crashes.

Exit status 1 if in any phase but the crash a request failed, or if in any phase an exact answer was
wrong, or a pod was missing or exact as of long ago.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from rollout.play import CRASH, Plan, play
from rollout.replicas import Pace
from rollout.verdict import Verdict
from support.stores.servers import server_program, store_process

COLUMNS = (
    ("phase", 17),
    ("s", 4),
    ("calls", 6),
    ("failed", 6),
    ("repeated", 8),
    ("p50 ms", 6),
    ("p99 ms", 6),
    ("max ms", 6),
    ("stall ms", 8),
    ("connected", 9),
    ("exact", 6),
    ("no replay", 9),
    ("wrong", 5),
    ("unmarked", 8),
    ("behind s", 8),
    ("not exact s", 11),
)


def row(verdict: Verdict) -> list[str]:
    """A line of the table."""
    times, phase = verdict.milliseconds, verdict.phase
    failed = verdict.failed.total()
    return [
        phase.name,
        f"{phase.ended - phase.begun:.0f}",
        str(len(times) + failed),
        str(failed),
        str(verdict.repeated),
        *(f"{times[min(len(times) - 1, int(len(times) * part))]:.1f}" for part in (0.5, 0.99, 1)),
        f"{1000 * phase.longest_stall:.0f}",
        "/".join(map(str, phase.connections)),
        f"{100 * verdict.exact_share(has_replay=True):.1f}%",
        f"{100 * verdict.exact_share(has_replay=False):.1f}%",
        str(len(verdict.wrong)),
        str(len(verdict.unmarked)),
        f"{verdict.behind_seconds:.2f}",
        f"{verdict.not_exact_seconds:.1f}",
    ]


def show(verdicts: list[Verdict]) -> None:
    """Print the table, and what is behind its numbers."""
    lines = [[name for name, _ in COLUMNS], *map(row, verdicts)]
    for line in lines:
        print("  ".join(f"{cell:>{width}}" for cell, (_, width) in zip(line, COLUMNS, strict=True)))
    for verdict in verdicts:
        for title, found in (
            ("not exact", [verdict.marks()] if verdict.marks() else []),
            ("failed", [f"{count} {error}" for error, count in verdict.failed.most_common(5)]),
            ("wrong", verdict.wrong[:5]),
            ("unmarked", verdict.unmarked[:5]),
        ):
            for text in found:
                print(f"{verdict.phase.name}: {title}: {text}")


def is_good(verdict: Verdict) -> bool:
    """Whether callers missed nothing without being told."""
    may_fail = verdict.phase.name == CRASH
    return not (verdict.wrong or verdict.unmarked or (verdict.failed and not may_fail))


def main() -> None:
    """Play it with a real store, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=("redis", "valkey"), default="valkey")
    parser.add_argument("--steady", type=float, default=15.0, help="seconds of each steady phase")
    parser.add_argument("--pods", type=int, default=8)
    parser.add_argument("--replacements", type=int, default=3)
    parser.add_argument("--hurry", action="store_true", help="replace as fast as they start")
    parser.add_argument("--deadline", type=float, default=0.25, help="seconds of each call")
    parser.add_argument("--logs", type=Path, help="a folder for the replicas' logs")
    options = parser.parse_args()
    if server_program(options.store) is None:
        parser.error(f"there is no {options.store}-server on this machine")
    plan = Plan(
        Pace(0.5, 0.5, 0.5, 0.2) if options.hurry else Pace(),
        replacements=options.replacements,
        pods=options.pods,
        steady=options.steady,
        settle=0.2 if options.hurry else 2.0,
        call_seconds=options.deadline,
    )
    with store_process(options.store) as store, tempfile.TemporaryDirectory() as temporary:
        folder = options.logs or Path(temporary)
        folder.mkdir(exist_ok=True)
        verdicts = asyncio.run(play(plan, folder, store.url))
    show(verdicts)
    sys.exit(not all(map(is_good, verdicts)))


if __name__ == "__main__":
    main()
