"""Where a listener's connections come from.

A process accepts them itself, or is handed those that the process which started it has accepted.

    connections   what a listener needs of either
    binding       one address of a listener, or another port where that one is taken
    sockets       listening sockets: of host and port, or a path
    acceptor      accepts connections at such sockets
    channel       between two processes: connections one way, what became of them the other
    handed        connections that another process has accepted
"""

from __future__ import annotations

from service.accepting.acceptor import Acceptor
from service.accepting.binding import ListenError, bind
from service.accepting.channel import Channel, Report, channel
from service.accepting.connections import Connections
from service.accepting.handed import HandedConnections

__all__ = [
    "Acceptor",
    "Channel",
    "Connections",
    "HandedConnections",
    "ListenError",
    "Report",
    "bind",
    "channel",
]
