"""Workers that anybody can invent: how many may join, and what is done with the others."""

from __future__ import annotations

from collections import Counter
from functools import cache

import msgpack
import pytest

from indexer import KeyScheme, MemoryIndex
from kvevents import EventPolicy, FleetLimits, FrameRouter, Source

BOUND = Source("tcp://*:5557", bind=True)
LIMITS = FleetLimits(pods=10, models=3, ranks=4, connection_workers=6)


class NoReplays:
    def start(self, stream: object, request: object) -> None:
        raise AssertionError(stream)

    def cancel(self, stream: object) -> None:
        pass


class Fleet:
    """A router that admits within `LIMITS`; a connection is up once it has been used."""

    def __init__(self) -> None:
        self.index = MemoryIndex(64 * 1024**2)
        scheme_of = cache(lambda model: KeyScheme(model, 16, ""))
        policy = EventPolicy(fleet_limits=LIMITS)
        self.router = FrameRouter(self.index, scheme_of, NoReplays(), policy)
        self._connected: set[int] = set()

    def publish(
        self, pod: str, connection: int, *, model: str = "m", rank: int = 0, sequence: int = 0
    ) -> None:
        if connection not in self._connected:
            self._connected.add(connection)
            self.router.on_connected(BOUND, connection)
        payload = msgpack.packb([1.0, [["AllBlocksCleared"]], rank])
        topic = f"kv@{pod}@{model}".encode()
        self.router.route(BOUND, [topic, sequence.to_bytes(8, "big"), payload], connection)

    def disconnect(self, connection: int) -> None:
        self.router.on_disconnected(BOUND, connection)

    @property
    def pods(self) -> set[str]:
        return {worker.pod for worker in self.router.streams}


def test_pods_beyond_the_limit_are_refused_and_counted() -> None:
    fleet = Fleet()
    for number in range(25):
        fleet.publish(f"pod-{number}", connection=1 + number // 5)
    assert fleet.pods == {f"pod-{number}" for number in range(10)}
    assert {blocks.worker.pod for blocks in fleet.index.workers()} == fleet.pods
    assert fleet.router.skipped == Counter(too_many_pods=15)


def test_the_pod_that_was_lost_first_makes_room_for_a_new_one() -> None:
    fleet = Fleet()
    for number in range(10):
        fleet.publish(f"pod-{number}", connection=1 + number)
    fleet.publish("new", connection=20)
    assert "new" not in fleet.pods
    for connection in (4, 3):
        fleet.disconnect(connection)
    fleet.router._admission._next_scan = 0.0
    fleet.publish("new", connection=20)
    assert fleet.pods == {f"pod-{number}" for number in range(10)} - {"pod-3"} | {"new"}
    assert fleet.router.departed == 1


@pytest.mark.parametrize(
    ("reason", "first", "second"),
    [
        ("too_many_models", {"model": "m4"}, {"model": "m5"}),
        ("too_many_ranks", {"rank": 4}, {"rank": 2**31 - 1}),
        ("name_too_long", {"pod": "p" * 513}, {"model": "m" * 513}),
    ],
)
def test_what_a_stranger_invents_is_refused_by_reason(
    reason: str, first: dict[str, object], second: dict[str, object]
) -> None:
    fleet = Fleet()
    for number in range(3):
        fleet.publish(f"pod-{number}", connection=1 + number, model=f"m{number}")
    known = fleet.pods
    for invented in (first, second):
        fleet.publish(**{"pod": "stranger", "connection": 9, **invented})  # type: ignore[arg-type]
    assert fleet.pods == known
    assert fleet.router.skipped == Counter({reason: 2})


def test_a_connection_speaks_for_a_limited_number_of_workers() -> None:
    fleet = Fleet()
    for number in range(8):
        fleet.publish(f"pod-{number}", connection=1)
    fleet.publish("other", connection=2)
    assert len(fleet.pods) == 7
    assert fleet.router.skipped == Counter(too_many_workers_of_connection=2)


def test_a_topic_of_any_length_costs_nothing() -> None:
    fleet = Fleet()
    fleet.publish("p" * 5000, connection=1)
    assert fleet.router.skipped == Counter(topic_too_long=1)


def test_models_that_nobody_serves_any_more_make_room() -> None:
    fleet = Fleet()
    for number in range(3):
        fleet.publish(f"pod-{number}", connection=1 + number, model=f"m{number}")
    fleet.router.forget_pod("pod-1")
    fleet.publish("new", connection=9, model="another")
    assert "new" in fleet.pods


def test_a_pod_that_names_a_model_too_many_keeps_what_it_has() -> None:
    fleet = Fleet()
    for number in range(3):
        fleet.publish(f"pod-{number}", connection=1 + number, model=f"m{number}")
    fleet.publish("pod-0", connection=1, model="another", sequence=1)
    assert fleet.router.skipped == Counter(too_many_models=1)
    assert {blocks.model for blocks in fleet.index.workers()} == {"m0", "m1", "m2"}
