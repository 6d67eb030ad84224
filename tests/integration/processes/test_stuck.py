"""A process that is stuck is ended and started again: who is connected would wait for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import grpc
import pytest
from kvatlas.v1 import scoring_pb2_grpc
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.deadlines import DEADLINE_SECONDS
from support.processes import channels
from support.services.one_pod import score_request
from support.services.running import local_configuration

from service.processes import PrivateStore, Supervisor, entrance


class Supervised:
    """Two processes, whose supervisor runs in this one."""

    def __init__(self, supervisor: Supervisor, logged: list[EventDict]) -> None:
        self._supervisor = supervisor
        self._logged = logged

    @property
    def address(self) -> str:
        return self._supervisor.scoring.addresses[0]

    def events(self, event: str) -> list[EventDict]:
        return [line for line in self._logged if line["event"] == event]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not is_so():  # noqa: ASYNC110 - what other processes do
                await asyncio.sleep(0.02)

    async def until_ready(self) -> None:
        behind = self._supervisor.scoring._behind
        await self.until(lambda: [each.is_ready for each in behind.values()] == [True, True])


BLOCKED_BY_SIGNAL = """
import signal, sys, time
from service.cli.entry import main
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(3600))
sys.exit(main())
"""
"""The command, with a signal that blocks its event loop."""


@asynccontextmanager
async def running_processes() -> AsyncIterator[Supervised]:
    configuration = local_configuration(processes=2, log={"level": "error"})
    command = [sys.executable, "-P", "-c", BLOCKED_BY_SIGNAL, "serve"]
    supervisor = Supervisor(configuration, command)
    with capture_logs() as logged:
        async with PrivateStore() as store:
            supervisor.bind()
            running = asyncio.create_task(supervisor.run(store.url))
            processes = Supervised(supervisor, logged)
            try:
                await processes.until_ready()
                yield processes
            finally:
                supervisor.stop(signal.SIGTERM)
                await running


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (signal.SIGSTOP, -signal.SIGKILL),
        (signal.SIGUSR1, -signal.SIGABRT),
    ],
    ids=["suspended", "blocked"],
)
async def test_a_process_that_does_not_go_on_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    stack: AsyncExitStack,
    sent: signal.Signals,
    status: int,
) -> None:
    monkeypatch.setattr(entrance, "_SILENT_LOST_SECONDS", 6)
    async with running_processes() as processes:
        made = await channels(stack, processes.address, 2)
        pids = {each["process"]: each["pid"] for each in processes.events("process_started")}
        os.kill(pids[1], sent)
        await processes.until(lambda: len(processes.events("process_started")) == 3)
        await processes.until_ready()
        for channel in made:  # one of which was connected to it
            score = scoring_pb2_grpc.ScoringServiceStub(channel).Score
            with suppress(grpc.aio.AioRpcError):
                await score(score_request([1] * 16), timeout=DEADLINE_SECONDS)
            code = await score(score_request([1] * 16), timeout=DEADLINE_SECONDS).code()
            assert code == grpc.StatusCode.NOT_FOUND
        (ended,) = processes.events("process_ended")
        assert (ended["process"], ended["status"]) == (1, status)
        stuck = processes.events("process_stuck")
        assert [each["process"] for each in stuck] == [1], stuck
    trace = capfd.readouterr().err
    assert ("Fatal Python error: Aborted" in trace) == (sent == signal.SIGUSR1)
    assert ("in <lambda>" in trace) == (sent == signal.SIGUSR1), "where it was"
