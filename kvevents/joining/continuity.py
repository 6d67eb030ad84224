"""Whether a stream that was applied elsewhere goes on here without a gap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvevents.sequencing import Incarnation
from kvevents.stream import fingerprint_of, received_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvevents.pending import PendingFrame


def goes_on(
    dumped: dict[str, Any], kept: Sequence[PendingFrame], connection: int | None, note: str
) -> bool:
    """Whether nothing can be missing between a dump and the frames that were kept meanwhile.

    Args:
        dumped: the stream as its last owner left it.
        kept: every frame of the worker that has come here since frames of it are kept.
        connection: the live one, through which the worker publishes.
        note: what the last owner was told when frames were being kept; empty: it was not told.

    The engine is the same one if a frame that was kept is one that was applied. It is, too, if all
    came through the connection that was up when the note was left, and the dump has that note.
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
    return True in were_applied or (bool(note) and dumped.get("kept_by") == note)


def frames_after(dumped: dict[str, Any], kept: Sequence[PendingFrame]) -> list[PendingFrame]:
    """Those of the frames kept that the last owner has not applied, if the stream goes on."""
    last = dumped["life"]["last"]
    return [each for each in kept if each.frame.sequence > last]
