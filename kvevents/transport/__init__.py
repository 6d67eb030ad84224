"""Bytes in and out over ZMQ; it knows nothing of workers and streams.

In path order:

    subscriber     a SUB socket on the event loop
    descriptors    how many sockets there may be
    curve          CURVE keys of a socket, and whose connections are accepted
    message_reader  messages from a socket, part by part
    inbox          messages that wait to be handled
    connections    which of a socket's connections a message came through
    frame          message parts -> frame
    replay_client  the frames that an engine still has, as an async iterator
"""

from __future__ import annotations

from kvevents.transport.curve import Authenticator
from kvevents.transport.descriptors import raise_limit as raise_descriptor_limit
from kvevents.transport.frame import Frame, FrameError, parse_frame
from kvevents.transport.replay_client import ReplayError, ReplayTimeoutError, replay
from kvevents.transport.subscriber import (
    MessageHandler,
    SocketLimits,
    SubscribeError,
    Subscriber,
)

__all__ = [
    "Authenticator",
    "Frame",
    "FrameError",
    "MessageHandler",
    "ReplayError",
    "ReplayTimeoutError",
    "SocketLimits",
    "SubscribeError",
    "Subscriber",
    "parse_frame",
    "raise_descriptor_limit",
    "replay",
]
