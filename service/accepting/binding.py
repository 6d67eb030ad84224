"""One address of a listener, or another port where that one is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger("kvatlas.service")


class ListenError(OSError):
    """An address cannot be bound."""


def bind(name: str, address: str, bind_at: Callable[[str], int], *, may_move: bool = False) -> str:
    """Bind an address; return it with the port that was chosen.

    Args:
        name: of the listener's section, for messages.
        address: host:port or unix:path.
        bind_at: binds an address, and returns its port. It raises OSError.
        may_move: whether to take any free port where the one in the address is in use.

    Raises:
        ListenError: it cannot be bound.
    """
    try:
        port = bind_at(address)
    except OSError as error:
        host, _, port_text = address.rpartition(":")
        if may_move and port_text != "0":
            moved = bind(name, f"{host}:0", bind_at, may_move=True)
            _log.warning("port_in_use", listener=name, address=address, instead=moved)
            return moved
        raise ListenError(f"{name}.listen: cannot bind {address}") from error
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
