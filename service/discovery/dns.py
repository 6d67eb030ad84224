"""Pods behind a name, such as a headless service's: each address is one."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from typing_extensions import override

from service.discovery.pods import DiscoveredPod, Discovery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    Resolver = Callable[[str], Awaitable[Collection[str]]]

_UNKNOWN_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
_ANSWERS_THAT_TELL = 3
"""An address is gone when so many answers in a row were without it: servers may leave some out."""

_log = structlog.get_logger("kvatlas.discovery")


class DnsPods(Discovery):
    """Looks a name up again and again.

    A name that is not known has no addresses; a server that fails tells nothing.

    Args:
        url: http://name:port.
        seconds: between two look-ups.
        resolve: returns a name's addresses; raises OSError.
    """

    def __init__(self, url: str, seconds: float, resolve: Resolver | None = None) -> None:
        parts = urlsplit(url)
        self._scheme, self._host, self._port = parts.scheme, parts.hostname or "", parts.port
        self._seconds = seconds
        self._resolve = resolve or addresses_of
        self._missing: dict[str, int] = {}
        """Address -> how many answers in a row were without it."""
        self._has_failed = False

    @property
    @override
    def name(self) -> str:
        return f"dns {self._host}:{self._port}"

    @override
    async def run(self, found: Callable[[Collection[DiscoveredPod]], None]) -> None:
        has_told = False
        while True:
            addresses = await self._look_up()
            if addresses is not None and (self._have_changed(addresses) or not has_told):
                found([DiscoveredPod(self._url(address)) for address in sorted(self._missing)])
                has_told = True
            await asyncio.sleep(self._seconds * random.uniform(0.9, 1.1))  # noqa: S311

    async def _look_up(self) -> Collection[str] | None:
        """The addresses behind the name; None if that is not known."""
        try:
            addresses = await self._resolve(self._host)
        except socket.gaierror as error:
            if error.errno in _UNKNOWN_NAME:
                return ()
            self._fail(error)
            return None
        except OSError as error:
            self._fail(error)
            return None
        self._has_failed = False
        return addresses

    def _fail(self, error: OSError) -> None:
        if not self._has_failed:
            _log.warning("name_not_resolved", name=self._host, detail=str(error))
        self._has_failed = True

    def _have_changed(self, addresses: Collection[str]) -> bool:
        """Take an answer into account; returns whether other pods are there now."""
        before = set(self._missing)
        for address in before - set(addresses):
            self._missing[address] += 1
            if self._missing[address] >= _ANSWERS_THAT_TELL:
                del self._missing[address]
        self._missing.update(dict.fromkeys(addresses, 0))
        return before != set(self._missing)

    def _url(self, address: str) -> str:
        host = f"[{address}]" if ":" in address else address
        return f"{self._scheme}://{host}:{self._port}"


async def addresses_of(host: str) -> frozenset[str]:
    """The IP addresses behind a host. Raises OSError."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # such as a label of more than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no name of a host") from error
    return frozenset(str(address[0]) for *_, address in found)
