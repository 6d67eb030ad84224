"""Replicas are replaced one by one, then one crashes, under load: callers miss nothing unmarked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollout.play import CRASH, Plan, play
from rollout.replicas import Pace

if TYPE_CHECKING:
    from pathlib import Path

    from support.stores.servers import StoreProcess

PLAN = Plan(
    Pace(min_ready=0.5, pre_stop=0.5, lame_duck=0.5, endpoints=0.2),
    pods=4,
    call_pause=0.1,
    call_seconds=5.0,
    event_pause=0.2,
    scale_pause=1.0,
    warm=3.0,
    steady=2.0,
    settle=0.2,
    recovery=2.0,
)


async def test_no_call_fails_and_no_answer_is_wrong_while_replicas_are_replaced(
    redis: StoreProcess, tmp_path: Path
) -> None:
    verdicts = await play(PLAN, tmp_path, redis.url)
    for verdict in verdicts:
        assert verdict.milliseconds
        assert not verdict.wrong
        assert not verdict.missing
        assert not verdict.failed or verdict.phase.name == CRASH
    assert all(sum(verdict.states[has].values()) for verdict in verdicts for has in (True, False))
    first, last = verdicts[0], verdicts[-1]
    assert first.states[False]["exact"]
    assert last.states[True]["exact"]
