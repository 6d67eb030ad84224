"""Whether a stream that was applied elsewhere goes on here without a gap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvevents.sequencing import Incarnation
from kvevents.stream import fingerprint_of, received_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvevents.pending import PendingFrame
    from kvevents.source import Source


def goes_on(
    dumped: dict[str, Any],
    kept: Sequence[PendingFrame],
    source: Source,
    connection: int | None,
    note: str,
) -> bool:
    """Whether nothing can be missing between a dump and the frames that were kept meanwhile.

    Args:
        dumped: the stream as its last owner left it.
        kept: every frame of the worker that has come here since frames of it are kept.
        source: where the worker publishes, as this replica knows.
        connection: the live one, through which the worker publishes.
        note: what the last owner was told when frames were being kept; empty: it was not told.

    The engine is the same one if a frame that was kept is one that was applied. It is, too, if all
    came through the connection that was up when the note was left, and the dump has that note. The
    last owner notes it only if it had applied what had come before, through a connection that was
    up (see `has_every_frame`), so that both were connected to the same engine; and only if both
    know the same address of it.
    """
    if connection is None or any(frame.connection != connection for frame in kept):
        return False
    life = Incarnation.load(dumped["life"])
    if kept and kept[0].frame.sequence > life.last + 1:
        return False
    were_applied = {
        life.has(received_frame(each.frame, each.batch, fingerprint_of(each.frame.payload)))
        for each in kept
    }
    if False in were_applied:
        return False  # under the number of another engine's frame
    is_there = source.bind or dumped["endpoint"] == source.endpoint
    return True in were_applied or (is_there and bool(note) and dumped.get("kept_by") == note)


def frames_after(dumped: dict[str, Any], kept: Sequence[PendingFrame]) -> list[PendingFrame]:
    """Those of the frames kept that the last owner has not applied, if the stream goes on."""
    last = dumped["life"]["last"]
    return [each for each in kept if each.frame.sequence > last]
