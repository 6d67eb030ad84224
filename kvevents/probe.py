"""Who is behind a source that does not say it all: its engine's replay socket is asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
import zmq

from indexer import Worker
from kvevents.source import UnknownPublisherError
from kvevents.stream import ReplayConnection, parse_answer
from kvevents.wire import PayloadError, decode_batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvevents.source import Source
    from kvevents.transport import Frame

_log = structlog.get_logger("kvatlas.kvevents")


async def scout(
    context: zmq.Context[zmq.Socket[bytes]],
    source: Source,
    is_identified: Callable[[], bool],
    identify: Callable[[bytes, int | None], None],
    seconds: float,
    patience: float,
) -> None:
    """Ask every so many seconds for the first frame that the engine still has, until it is known.

    Its topic says the model and its payload the rank. patience: seconds to wait for an answer.
    """
    complained = False
    while not is_identified():
        try:
            frame = await _first_frame(context, source, patience)
            if frame is not None:
                identify(frame.topic, decode_batch(frame.payload).rank)
        except (zmq.ZMQError, ValueError, PayloadError, UnknownPublisherError) as error:
            if not complained:
                _log.warning("source_not_identified", endpoint=source.endpoint, detail=str(error))
            complained = True
        await asyncio.sleep(seconds)


async def _first_frame(
    context: zmq.Context[zmq.Socket[bytes]], source: Source, patience: float
) -> Frame | None:
    """The first frame of the answer, None if there is none, or no answer."""
    endpoint = source.replay_endpoint(Worker(source.pod, source.rank or 0))
    if endpoint is None:
        return None
    with ReplayConnection(context, endpoint) as dealer:
        dealer.send(0)
        if not await dealer.readable(patience):
            return None
        parts = dealer.receive()
        return None if parts is None else parse_answer(parts)
