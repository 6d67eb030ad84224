"""HTTP/2 for a server, in the event loop; it knows nothing of gRPC.

In path order:

    server          all connections of a listener
    connection      one connection: when it is read, and its end
    turns           which connection is read next
    peer_frames     what the frames of its peer mean
    wire            frames and header blocks, as octets
    outbox          what is written together; room that the peer has
    lifetime        how long a connection lasts, and what idle talk its peer may make
    bodies          what the bodies of all requests may take
    stream          one request and its response, with flow control
"""

from __future__ import annotations

from service.listening.http2.lifetime import Bounds
from service.listening.http2.outbox import Outbox
from service.listening.http2.server import Http2Server
from service.listening.http2.stream import PeerLeftError, Stream
from service.listening.http2.wire.header_blocks import Headers, encode

__all__ = ["Bounds", "Headers", "Http2Server", "Outbox", "PeerLeftError", "Stream", "encode"]
