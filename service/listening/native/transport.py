"""The transport of the service's own: HTTP/2 in its event loop."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from service.accepting import Acceptor
from service.listening.calls import Calls, NoConnections
from service.listening.http2 import Bounds, Http2Server
from service.listening.native.runner import CallRunner, methods_of
from service.listening.transport import NO_METHOD
from service.listening.watched import WatchedFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.config import ListenerSection
    from service.listening.tokens import TokenCheck
    from service.listening.transport import Handlers, ListenerSettings

_LONGEST_GRACE = 10.0


class NativeTransport:
    """Serves HTTP/2."""

    def __init__(
        self, settings: ListenerSettings, services: Handlers, tokens: TokenCheck | None
    ) -> None:
        self._calls = Calls(settings.on_refused, watches_tasks=False)
        watched = {
            service: {name: self._calls.watched(each) for name, each in handlers.items()}
            for service, handlers in services.items()
        }
        refusal_of = None if tokens is None else tokens.refusal_of
        runner = CallRunner(
            *(methods_of(watched), settings.request_bytes, NO_METHOD),
            *(settings.on_refused, self._calls.ended, refusal_of),
        )
        self._connections = settings.connections or Acceptor()
        self._server = Http2Server(
            self._connections,
            runner,
            connection_bounds(settings),
            settings.arriving_bytes,
            settings.bounds.connections,
            settings.on_closed,
            server_tls(settings.name, settings.section),
        )

    def bind(self, address: str) -> int:
        """Listen at an address. Raises OSError."""
        return self._connections.bind(address)

    async def start(self) -> None:
        """Accept connections."""
        self._server.start()

    async def until_it_dies(self) -> None:
        """Wait for ever: there is no task that could die."""
        await asyncio.get_running_loop().create_future()

    async def stop(self, seconds: float) -> None:
        """End in order: no further calls, calls in progress, connections."""
        await self._server.stop_accepting()
        await self._calls.end(seconds, NoConnections())
        await self._server.close()


def connection_bounds(settings: ListenerSettings) -> Bounds:
    """Return what the peer of a connection may do."""
    section = settings.bounds
    return Bounds(
        calls=section.calls_per_connection,
        handshake_seconds=section.handshake_seconds,
        idle_seconds=section.idle_seconds,
        ping_seconds=section.ping_seconds,
        age_seconds=section.connection_age_seconds if settings.ages else 0.0,
        grace_seconds=max(section.drain_seconds, _LONGEST_GRACE),
    )


def server_tls(name: str, section: ListenerSection) -> Callable[[], ssl.SSLContext] | None:
    """Return what a handshake uses, as the files say by then. Raises OSError, ValueError."""
    files = (section.certificate_file, section.key_file, section.client_ca_file)
    if section.certificate_file is None:
        return None

    def read() -> ssl.SSLContext:
        section.read_certificates()  # says what is wrong with them
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["h2"])
        assert section.certificate_file is not None  # noqa: S101 - as above
        context.load_cert_chain(section.certificate_file, section.key_file, password="")
        if section.client_ca_file is not None:
            context.load_verify_locations(section.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    present = [file for file in files if file is not None]
    watched = WatchedFiles(f"{name}.certificate_file", present, read, 1.0)
    return lambda: watched.content
