"""What engines deliver of what was promised, and when they are doubted for it."""

from __future__ import annotations

from indexer import Worker
from service.routing import OutcomeLimits, Outcomes, Promise

WORKER, OTHER = Worker("a:1", 0), Worker("b:1", 0)
EXACT = Promise(100, 4, is_exact=True)


class Fleet:
    """Outcomes, and who was doubted when."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self.doubts: list[tuple[float, Worker]] = []
        self.outcomes = Outcomes(
            OutcomeLimits(0.5, 4, seconds),
            lambda worker: self.doubts.append((self.now, worker)),
            lambda: self.now,
        )

    def report(self, cached: int, promise: Promise = EXACT, worker: Worker = WORKER) -> None:
        self.outcomes.add(worker, "m", promise, cached, {})


def test_a_rank_is_doubted_at_most_once_in_a_while_however_many_report() -> None:
    fleet = Fleet(seconds=60.0)
    for second in range(200):
        fleet.now = float(second)
        fleet.report(0)
        fleet.report(100, worker=OTHER)
    assert fleet.doubts == [(3.0, WORKER), (63.0, WORKER), (123.0, WORKER), (183.0, WORKER)]
    delivered = fleet.outcomes.of(WORKER, "m")
    assert delivered is not None
    assert (delivered.outcomes, delivered.missing) == (200, 20_000)


def test_promises_that_were_not_exact_lead_to_no_doubt() -> None:
    fleet = Fleet(seconds=0.0)
    for _ in range(20):
        fleet.report(0, Promise(100, 4, is_exact=False))
        fleet.report(0, Promise(0, 0, is_exact=True))
    assert not fleet.doubts


def test_sources_that_callers_invent_are_bounded() -> None:
    fleet = Fleet(seconds=0.0)
    for number in range(100):
        fleet.outcomes.add(WORKER, "m", EXACT, 3, {f"source-{number}": 1, "gpu": 2})
    delivered = fleet.outcomes.of(WORKER, "m")
    assert delivered is not None
    assert len(delivered.by_source) <= 17
    assert delivered.by_source.total() == 300
