"""Free ports, for servers that cannot say which one they were given; and giving ports up."""

from __future__ import annotations

import asyncio
import os
import random
import socket

_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_given: set[int] = set()
_ACCEPT_STEPS = 10
"""Turns of the event loop in which a connection that is being accepted begins to be served."""


def free_port() -> int:
    """A port that is free, as is the one 10,000 above, on every local address.

    Both are below the ephemeral ports, so that no socket gets them by chance; no port is given
    twice, and test processes that run side by side are given different ones.
    """
    while True:
        port = random.randrange(10_000 + _PROCESS, 22_000, _PROCESSES)
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("", port))
                other.bind(("", port + 10_000))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port


async def close_listening(server: asyncio.Server) -> None:
    """Close a server's listening sockets, and lose no connection that is being accepted.

    asyncio loses one if its server is closed meanwhile: nobody would close it.
    """
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    for _ in range(_ACCEPT_STEPS):
        await asyncio.sleep(0)
    server.close()
