"""Random fleets and an API server that fails at random: what is told is what there was, in order.

Every telling is the server's state at some moment, none before that of the telling before it, and
soon after the faults end it is the state that there is.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from support.kubernetes import ApiServer, Fault, Told, discovering, endpoint, endpoint_slice, pod
from support.kubernetes.cluster import Scope
from support.kubernetes.faults import Verb

from service.discovery.kubernetes import ApiLimits, Pace

PACE = Pace(1.0, 0.005, 0.05, healthy_seconds=0.1, tell_seconds=0.0, page_objects=4)
LIMITS = ApiLimits(timeout_seconds=0.3, answer_bytes=200_000, line_bytes=20_000)

FAULTS: dict[Verb, list[Fault]] = {
    "list": [
        *(Fault("status", status) for status in (401, 403, 404, 410, 429, 500, 503)),
        *(Fault(kind, size=300_000) for kind in ("close", "silent", "half", "slow", "garbage")),
        *(Fault("answer"), Fault("huge", size=300_000)),
    ],
    "watch": [
        *(Fault("status", status) for status in (401, 403, 410, 429, 500)),
        *(Fault(kind) for kind in ("close", "silent", "half", "garbage", "gone", "error", "end")),
    ],
    "event": [
        Fault("huge", size=30_000),
        *(Fault(kind) for kind in ("half", "cut", "slow", "garbage", "gone", "error", "close")),
    ],
}

State = dict[str, bool]


class Fleet:
    """Pods or slices that change at random, and every state that the server had."""

    def __init__(self, server: ApiServer, dice: random.Random, *, is_service: bool) -> None:
        self._server = server
        self._dice = dice
        self._is_service = is_service
        self._plural = "endpointslices" if is_service else "pods"
        self.states: list[State] = [{}]

    @property
    def state(self) -> State:
        """What a discovery should tell of the objects that there are now."""
        found: State = {}
        selector = "kubernetes.io/service-name=vllm" if self._is_service else "app=vllm"
        for item in self._server.cluster.items(Scope(self._plural, "models", selector)):
            for address, is_ready in _slice_state(item) if self._is_service else _pod_state(item):
                found[address] = found.get(address, False) or is_ready
        return found

    def change(self) -> None:
        """One random change."""
        cluster, dice = self._server.cluster, self._dice
        items = cluster.items(Scope(self._plural, "", ""))
        if items and dice.random() < 0.3:
            cluster.delete(dice.choice(items))
        elif dice.random() < 0.1:
            cluster.touch()
        else:
            cluster.apply(self._slice() if self._is_service else self._pod())
        self.states.append(self.state)

    def _pod(self) -> dict[str, Any]:
        dice = self._dice
        number = dice.randrange(12)
        return pod(
            f"p{number}",
            f"10.0.0.{number}" if dice.random() < 0.9 else "",
            ready=dice.random() < 0.7,
            terminating=dice.random() < 0.2,
            phase="Running" if dice.random() < 0.8 else dice.choice(["Pending", "Failed"]),
            labels={"app": "vllm"} if dice.random() < 0.85 else {"app": "web"},
            namespace="models" if dice.random() < 0.9 else "default",
        )

    def _slice(self) -> dict[str, Any]:
        dice = self._dice
        addresses = dice.sample(range(10), dice.randrange(5))
        endpoints = [
            endpoint(
                f"10.0.0.{number}",
                ready=dice.choice([True, False, None]),
                terminating=dice.choice([True, False, False, None]),
            )
            for number in addresses
        ]
        service = "vllm" if dice.random() < 0.85 else "web"
        return endpoint_slice(f"s{dice.randrange(5)}", *endpoints, service=service)


def _pod_state(item: dict[str, Any]) -> list[tuple[str, bool]]:
    status = item["status"]
    if status["phase"] != "Running" or "podIP" not in status:
        return []
    is_ready = status["conditions"][-1]["status"] == "True"
    is_ready = is_ready and "deletionTimestamp" not in item["metadata"]
    return [(f"{status['podIP']}:8000", is_ready)]


def _slice_state(item: dict[str, Any]) -> list[tuple[str, bool]]:
    return [
        (
            f"{found['addresses'][0]}:8000",
            found["conditions"]["ready"] in {True, None} and not found["conditions"]["terminating"],
        )
        for found in item["endpoints"]
    ]


async def misbehave(server: ApiServer, dice: random.Random) -> None:
    """One random fault, or none."""
    match dice.randrange(12):
        case 0 | 1:
            verb: Verb = dice.choice(["list", "watch", "event", "event"])
            server.faults.plan(verb, dice.choice(FAULTS[verb]))
        case 2:
            server.disconnect()
        case 3:
            server.cluster.compact()
        case 4 if dice.random() < 0.2:
            await server.stop()
            await asyncio.sleep(0.02 * dice.random())
            await server.start()


def assert_in_order(told: Told, states: list[State]) -> None:
    """Each telling is a state of the server, and none is before the one before it."""
    position = 0
    for state in told.states:
        while states[position] != state:
            position += 1
            assert position < len(states), f"there was no such state at that time: {state}"


async def run(seed: int, steps: int) -> None:
    dice = random.Random(seed)
    is_service = dice.random() < 0.5
    async with ApiServer() as server:
        server.bookmark_seconds = dice.choice([0.0, 0.01])
        fleet = Fleet(server, dice, is_service=is_service)
        for _ in range(dice.randrange(15)):
            fleet.change()
        fleet.states = fleet.states[-1:]
        which = {"service": "vllm"} if is_service else {"selector": "app=vllm"}
        async with discovering(server.url, pace=PACE, limits=LIMITS, **which) as told:  # type: ignore[arg-type]
            for _ in range(steps):
                for _ in range(dice.randrange(4)):
                    fleet.change()
                await misbehave(server, dice)
                await asyncio.sleep(dice.choice([0, 0.001, 0.005, 0.02]))
            await told.until(lambda told: told.states[-1] == fleet.state)
            assert_in_order(told, fleet.states)


@pytest.mark.parametrize("seed", range(12))
async def test_what_is_told_is_what_there_was_and_at_last_what_there_is(seed: int) -> None:
    await run(seed, steps=60)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1000, 1300))
async def test_long_histories_are_told_in_order(seed: int) -> None:
    await run(seed, steps=400)
