"""When a stream goes on at the next owner without a doubt, and when it must not."""

from __future__ import annotations

from typing import Any

import pytest
from support.engines.model_server import block_stored
from support.services.one_pod import frame

from indexer import KeyScheme, MemoryIndex, Worker
from kvevents import FrameRouter, Source, dump_stream, has_every_frame
from kvevents.joining import goes_on

WORKER = Worker("a:1", 0)
HERE = Source("tcp://127.0.0.1:1", pod="a:1", model="m", rank=0, replay="tcp://127.0.0.1:2")
ELSEWHERE = Source("tcp://127.0.0.1:9", pod="a:1", model="m", rank=0)
NOTE = "b#1/1"


class NoReplays:
    """Replays that never answer."""

    def start(self, *_: object) -> None:
        pass

    def cancel(self, *_: object) -> None:
        pass


@pytest.fixture
def owner() -> FrameRouter:
    """The router of the owner, to which three frames have come through connection 1."""
    router = FrameRouter(MemoryIndex(2**20), lambda model: KeyScheme(model, 16, ""), NoReplays())
    router.on_connected(HERE, 1)
    for number in range(3):
        publish(router, number)
    return router


def publish(router: FrameRouter, number: int) -> None:
    tokens = list(range(100 * number, 100 * number + 16))
    router.route(HERE, frame(number, block_stored(tokens, first_hash=number + 1)), 1)


def dumped(router: FrameRouter) -> dict[str, Any]:
    found = dump_stream(router.streams[WORKER])
    assert found is not None
    return {**found, "kept_by": NOTE}


def test_a_stream_goes_on_if_the_note_holds_and_both_know_the_same_engine(
    owner: FrameRouter,
) -> None:
    assert goes_on(dumped(owner), [], HERE, 7, NOTE)
    assert not goes_on(dumped(owner), [], HERE, None, NOTE)
    assert not goes_on(dumped(owner), [], HERE, 7, "b#1/2")
    assert not goes_on(dumped(owner), [], HERE, 7, "")
    assert not goes_on(dumped(owner), [], ELSEWHERE, 7, NOTE)


def test_an_owner_that_has_every_frame_says_so(owner: FrameRouter) -> None:
    assert has_every_frame(owner.streams[WORKER])


def test_an_owner_that_has_lost_its_engine_does_not_vouch_for_it(owner: FrameRouter) -> None:
    owner.on_disconnected(HERE, 1)
    assert not has_every_frame(owner.streams[WORKER])


def test_an_owner_that_awaits_a_frame_does_not_vouch_for_it(owner: FrameRouter) -> None:
    publish(owner, 4)  # 3 is asked for
    assert not has_every_frame(owner.streams[WORKER])
