"""What publishers cause to be logged: bounded, for each pod."""

from __future__ import annotations

from typing import Any

from kvevents.limited_log import LimitedLog


class RecordedLog:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **values: Any) -> None:
        self.lines.append((event, values))


def test_a_pod_has_so_many_lines_and_the_next_one_says_how_many_were_dropped() -> None:
    recorded: Any = RecordedLog()
    now = [100.0]
    log = LimitedLog(recorded, lambda: now[0])
    for _ in range(1_000):
        log.info("pod_state", pod="noisy:1", rank=0)
    log.info("pod_state", pod="quiet:1", rank=0)
    assert [values["pod"] for _, values in recorded.lines] == ["noisy:1"] * 50 + ["quiet:1"]
    now[0] += 2.5
    for _ in range(10):
        log.info("pod_state", pod="noisy:1", rank=0)
    later = [values for _, values in recorded.lines[51:]]
    assert later == [
        {"pod": "noisy:1", "rank": 0, "lines_dropped": 950},
        {"pod": "noisy:1", "rank": 0},
    ]


def test_the_pods_that_are_remembered_are_bounded() -> None:
    recorded: Any = RecordedLog()
    log = LimitedLog(recorded, lambda: 0.0)
    for number in range(20_000):
        log.info("worker_joined", pod=f"pod-{number}")
    assert len(recorded.lines) == 20_000
    assert len(log._allowances) == 8192
