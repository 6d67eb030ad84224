"""TODO map."""

from __future__ import annotations

from kvevents.transport.frame import Frame, FrameError, parse_frame
from kvevents.transport.subscriber import SubscribeError, Subscriber

__all__ = ["Frame", "FrameError", "SubscribeError", "Subscriber", "parse_frame"]
