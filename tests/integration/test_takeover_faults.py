"""The store fails at any point of a hand-over: it is tried again, and no worker gets stuck."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support.deadlines import DEADLINE_SECONDS
from support.services.replicated_fleet import ReplicatedFleet, replicated_fleet

from store import Server, StoreError, rendezvous_owner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvatlas.v1 import fleet_pb2
    from support.stores.servers import StoreProcess

FAILURES = 3
LOOPS = {"write", "heartbeat", "assign", "take over", "report", "collect", "follow 0"}
SCRIPTS = [
    *("acquire_worker", "read_pages", "flush_worker", "release_worker"),
    *("read_shard_status", "renew_reports", "heartbeat_replica"),
]
OUTCOMES = {
    "refused before anything is done": StoreError("unreachable", "injected"),
    "done without an answer": StoreError("timeout", "injected"),
    "read only": StoreError("read_only", "injected"),
    "a fault of our own": RuntimeError("injected"),
    "a cancelled connection": asyncio.CancelledError(),
}

RARER_OUTCOMES = ("refused before anything is done", "read only", "a cancelled connection")


@contextmanager
def failing(script: str, outcome: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The next calls of a script fail, whichever replica makes them; yields those that did."""
    failed: list[str] = []
    call_all = Server.call_all
    error = OUTCOMES[outcome]

    async def call(self: Server, layout: Any, calls: Sequence[Any]) -> list[Any]:
        task = asyncio.current_task()
        in_loop = task is not None and task.get_name() in LOOPS
        is_meant = in_loop and script in {call.script.file for call in calls}
        if len(failed) >= FAILURES or not is_meant:
            return await call_all(self, layout, calls)
        failed.append(script)
        if outcome == "done without an answer":
            await call_all(self, layout, calls)
        if isinstance(error, StoreError):
            return [error] * len(calls)
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Server, "call_all", call)
        yield failed


async def handed_over(fleet: ReplicatedFleet) -> None:
    """Wait until every replica knows every worker's new owner, and none changes hands."""
    names, owners = sorted(fleet.replicas), fleet.expected_owners()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            answers = {name: await fleet.listed(name) for name in names}
            if all(
                list(answer.shared_index.live_replicas) == names
                and fleet.owners(name, answer) == owners
                and "changing_hands" not in reasons(answer)
                for name, answer in answers.items()
            ):
                return


def takes_some(fleet: ReplicatedFleet) -> str:
    """The name of a replica that is to take some pods from replica a, and not all."""
    names = map(str, itertools.count())
    endpoints = [publisher.endpoint for publisher in fleet.publishers]
    return next(
        name
        for name in names
        if len({rendezvous_owner(endpoint, ["a", name]) for endpoint in endpoints}) == 2
    )


def reasons(answer: fleet_pb2.ListPodsResponse) -> set[str]:
    return {rank.trust_reason for pod in answer.pods for rank in pod.ranks}


@pytest.mark.parametrize(
    "outcome",
    [
        "done without an answer",
        "a fault of our own",
        *(pytest.param(outcome, marks=pytest.mark.soak) for outcome in RARER_OUTCOMES),
    ],
)
async def test_a_hand_over_during_which_the_store_fails_is_tried_again(
    redis: StoreProcess, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    """Workers go from one replica to another and back, once for each script."""
    async with replicated_fleet(redis.url) as (fleet, _):
        await fleet.start("a", lease_seconds=3.0)
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        other = takes_some(fleet)
        for script in SCRIPTS:
            with failing(script, outcome, monkeypatch) as failed:
                await fleet.start(other, lease_seconds=3.0)
                await handed_over(fleet)
                async with asyncio.timeout(DEADLINE_SECONDS):
                    while not failed:  # some scripts run once a second
                        await fleet.listed("a")
                await fleet.stop(other)
                await handed_over(fleet)
        names = {task.get_name() for task in asyncio.all_tasks() if not task.done()}
        assert names >= LOOPS
