"""Replaces replicas one by one under load, and lets one crash; tells what callers saw."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rollout.callers import Callers
from rollout.pods import ScaledFleet
from rollout.replicas import Pace, Replicas
from rollout.verdict import Judge, Phase, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CRASH = "crash"
"""The phase in which a replica is killed."""
OUTDATED_SECONDS = 2.0
"""As `store.max_lag_seconds`: no older answer is to be called exact."""
OUTDATED_AFTER_CRASH_SECONDS = 4.0
"""As `store.lease_seconds`, and a heartbeat: earlier nobody knows that a replica is gone."""


@dataclass(frozen=True)
class Plan:
    """How large everything is, and how long it takes; in seconds."""

    pace: Pace
    replicas: int = 3
    replacements: int = 3
    pods: int = 8
    call_pause: float = 0.04
    """Between two calls of a client; there are six."""
    call_seconds: float = 0.25
    """The deadline of a call, with all its attempts."""
    event_pause: float = 0.1
    """Between two events of a pod."""
    scale_pause: float = 4.0
    """Between a pod that comes and one that goes."""
    warm: float = 5.0
    """Before the first phase."""
    steady: float = 15.0
    """Of a phase in which no replica is replaced."""
    settle: float = 2.0
    """After each replacement, before the next one."""
    recovery: float = 8.0
    """After a crash, until everything is found out."""
    crashes: bool = True


class _Phases:
    def __init__(self, replicas: Replicas, callers: Callers) -> None:
        self.past: list[Phase] = []
        self._replicas = replicas
        self._callers = callers

    @asynccontextmanager
    async def named(self, name: str) -> AsyncIterator[None]:
        begun = time.monotonic()
        self._callers.longest_stall = 0.0
        yield
        phase = Phase(
            name,
            begun,
            time.monotonic(),
            self._callers.longest_stall,
            self._replicas.connections(),
            OUTDATED_AFTER_CRASH_SECONDS if name == CRASH else OUTDATED_SECONDS,
        )
        print(f"{name}: {phase.ended - begun:.0f} s", flush=True)
        self.past.append(phase)


async def play(plan: Plan, folder: Path, store_url: str) -> list[Verdict]:
    """Play it: what each phase shows."""
    async with AsyncExitStack() as stack:
        file = folder / "pods.json"
        fleet = await stack.enter_async_context(ScaledFleet(file, plan.event_pause))
        replicas = await stack.enter_async_context(Replicas(folder, store_url, file, plan.pace))
        await asyncio.gather(*(replicas.start() for _ in range(plan.replicas)))
        await fleet.add(plan.pods)
        await replicas.until_named()
        callers = Callers(replicas.target, plan.call_pause, plan.call_seconds)
        phases, is_over = _Phases(replicas, callers), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            calling = group.create_task(callers.run(is_over))
            scaling = group.create_task(fleet.scale(plan.scale_pause))
            await _phases(plan, replicas, phases)
            is_over.set()
            await calling
            scaling.cancel()
            with suppress(asyncio.CancelledError):
                await scaling
        judge = Judge(await fleet.ask("held"), fleet.lives)
        return judge.judge(phases.past, callers.calls, callers.repeated)


async def _phases(plan: Plan, replicas: Replicas, phases: _Phases) -> None:
    await asyncio.sleep(plan.warm)
    async with phases.named("steady"):
        await asyncio.sleep(plan.steady)
    for number in range(plan.replacements):
        async with phases.named(f"replacement {number + 1}"):
            await replicas.replace_oldest()
            await asyncio.sleep(plan.settle)
    async with phases.named("steady"):
        await asyncio.sleep(plan.steady)
    if plan.crashes:
        async with phases.named(CRASH):
            await replicas.crash_oldest()
            await asyncio.sleep(plan.recovery)
        async with phases.named("after the crash"):
            await asyncio.sleep(plan.steady)
