"""Replays of a stream: paused, and superseded."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from indexer import Worker
from kvevents.replaying import Replays, replays
from kvevents.sequencing import ReplayReason, ReplayRequest
from kvevents.source import Source
from kvevents.transport import Frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REQUEST = ReplayRequest(ReplayReason.GAP, 0)


class Engine:
    """A replay socket that answers when it is told to."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[Frame | None] = asyncio.Queue()
        self.requests = 0

    async def replay(self, *_: object) -> AsyncIterator[Frame]:
        self.requests += 1
        while (frame := await self.answers.get()) is not None:
            yield frame


class Stream:
    """A stream that awaits `REQUEST`, and notes what it is given."""

    def __init__(self) -> None:
        self.worker = Worker("a:1", 0)
        self.source = Source("tcp://a:5557", pod="a:1", model="m", rank=0)
        self.replay_endpoint = "tcp://a:5558"
        self.sequencer = SimpleNamespace(request=REQUEST)
        self.frames: list[int] = []
        self.finished = asyncio.Event()

    def on_replayed_frame(self, request: ReplayRequest, frame: Frame, batch: object) -> None:
        self.frames.append(frame.sequence)

    def go_on(self, deadline: float) -> bool:
        del deadline
        return False

    def on_replay_finished(self, request: ReplayRequest, *, complete: bool) -> None:
        self.finished.set()


@asynccontextmanager
async def running(stream: Any, concurrent: int = 1) -> AsyncIterator[Replays]:
    context: Any = None
    async with Replays(context, concurrent=concurrent) as running_replays:
        running_replays.start(stream, REQUEST)
        yield running_replays


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    monkeypatch.setattr(replays, "replay", engine.replay)
    return engine


async def let_tasks_run() -> None:
    """Let the event loop run until the answers so far have been taken, as far as they are."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_frame_that_arrives_during_a_pause_is_handled_after_it(engine: Engine) -> None:
    stream = Stream()
    async with running(stream) as running_replays:
        engine.answers.put_nowait(Frame(b"kv@a:1@m", 0, b"", b""))
        await let_tasks_run()
        running_replays.pause()
        engine.answers.put_nowait(Frame(b"kv@a:1@m", 1, b"", b""))
        engine.answers.put_nowait(None)
        await let_tasks_run()
        assert stream.frames == [0]
        running_replays.resume()
        await stream.finished.wait()
        assert stream.frames == [0, 1]


async def test_a_request_that_was_superseded_is_not_sent(engine: Engine) -> None:
    stream = Stream()
    stream.sequencer.request = None
    async with running(stream):
        await stream.finished.wait()
    assert engine.requests == 0
