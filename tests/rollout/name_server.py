"""A name server that answers as a cluster's does for a headless service."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_TTL_SECONDS = 5  # as CoreDNS has it for the names of a cluster
_A = 1
_ANSWER_FLAGS = 0x8580
_NAME_OF_QUESTION = 0xC00C


class NameServer(asyncio.DatagramProtocol):
    """Answers every question for IPv4 addresses with `addresses`, others with nothing.

    Attributes:
        addresses: behind the name.
        asked: questions for IPv4 addresses so far.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.asked = 0
        self._transport: Any = None

    @property
    def port(self) -> int:
        return int(self._transport.get_extra_info("sockname")[1])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        end = data.index(b"\0", 12) + 5
        (kind,) = struct.unpack("!H", data[end - 4 : end - 2])
        addresses = self.addresses if kind == _A else []
        self.asked += kind == _A
        answer = data[:2] + struct.pack("!5H", _ANSWER_FLAGS, 1, len(addresses), 0, 0)
        answer += data[12:end]
        for address in addresses:
            answer += struct.pack("!3HIH", _NAME_OF_QUESTION, _A, 1, _TTL_SECONDS, 4)
            answer += ipaddress.ip_address(address).packed
        self._transport.sendto(answer, addr)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """A name server on a port of its own."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, ("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()
