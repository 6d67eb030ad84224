"""Finds out which model and rank is behind a source, by asking its engine's replay socket."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import structlog

from kvevents.source import UnknownPublisherError
from kvevents.transport import ReplayError, ReplayTimeoutError, replay
from kvevents.wire import PayloadError, decode_batch

if TYPE_CHECKING:
    from collections.abc import Callable

    import zmq

    from kvevents.source import Source
    from kvevents.transport import Frame

_log = structlog.get_logger("kvatlas.kvevents")


async def probe_source(
    context: zmq.Context[zmq.Socket[bytes]],
    source: Source,
    knows_publisher: Callable[[], bool],
    identify_publisher: Callable[[bytes, int | None], None],
    interval: float,
    timeout_seconds: float,
) -> None:
    """Ask for the first frame that the engine still has, until its publisher is known.

    The frame's topic names the model, and its payload the rank.

    Args:
        context: where sockets are made.
        source: a source with a pod and a replay socket.
        knows_publisher: whether there is nothing more to find out.
        identify_publisher: called with the topic and the rank of the frame.
        interval: seconds between attempts.
        timeout_seconds: seconds to wait for an answer.
    """
    has_warned = False
    while not knows_publisher():
        try:
            frame = await _first_frame(context, source, timeout_seconds)
            if frame is not None:
                identify_publisher(frame.topic, decode_batch(frame.payload).rank)
        except ReplayTimeoutError:
            pass  # the engine may only be starting
        except (ReplayError, PayloadError, UnknownPublisherError) as error:
            if not has_warned:
                _log.warning("source_not_identified", endpoint=source.endpoint, detail=str(error))
            has_warned = True
        except Exception:  # noqa: BLE001 - the next attempt may succeed
            _log.exception("probe_failed", endpoint=source.endpoint)
        await asyncio.sleep(interval)


async def _first_frame(
    context: zmq.Context[zmq.Socket[bytes]], source: Source, timeout_seconds: float
) -> Frame | None:
    """The first frame that the engine still has, None if it has none. Raises ReplayError."""
    endpoint = source.replay_endpoint(source.worker_of(source.pod, source.rank or 0))
    if endpoint is None:
        return None
    frames = replay(context, endpoint, 0, timeout_seconds)
    async with aclosing(frames):  # type: ignore[type-var]
        return await anext(aiter(frames), None)
