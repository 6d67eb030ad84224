"""CURVE: encrypted connections, and only those of publishers whose public keys are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import zmq
from zmq.auth import load_certificate
from zmq.auth.thread import ThreadAuthenticator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvevents.source import Curve, Source


def secure(socket: zmq.Socket[bytes], curve: Curve, *, bind: bool) -> None:
    """Set the keys of a socket that is not bound or connected yet.

    Raises ValueError if a file does not contain the key that it should, OSError if it cannot be
    read.
    """
    public, secret = load_certificate(curve.key_file)
    if secret is None:
        raise ValueError(f"{curve.key_file} has no secret key")
    socket.curve_publickey, socket.curve_secretkey = public, secret
    if bind:
        socket.curve_server = True
        socket.setsockopt(zmq.ZAP_DOMAIN, _domain_of(curve).encode())
    else:
        socket.curve_serverkey, _ = load_certificate(curve.publishers)


def _domain_of(curve: Curve) -> str:
    return str(curve.publishers)


class Authenticator:
    """Accepts connections to the bound sources that have CURVE, within a `with` block.

    Reads the public keys once: a new key counts after a restart.

    Args:
        context: the one in which the sources' sockets are made.
        sources: all sources.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], sources: Sequence[Source]) -> None:
        self._context = context
        self._curves = [s.curve for s in sources if s.bind and s.curve is not None]

    def __enter__(self) -> Self:
        if self._curves:
            self._thread = ThreadAuthenticator(self._context)
            self._thread.start()
            for curve in self._curves:
                self._thread.configure_curve(
                    domain=_domain_of(curve), location=str(curve.publishers)
                )
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._curves:
            self._thread.stop()
