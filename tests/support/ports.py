"""Free ports, for servers that cannot say which one they were given."""

from __future__ import annotations

import os
import random
import socket

_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_given: set[int] = set()


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
