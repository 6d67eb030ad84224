"""Who a replica is to the store: its name, and which process of that name.

What a process owned that was killed is not owned by the next one of the same name, which knows
nothing of it. Shares are by name: a replica that is started again has the sources it had.
"""

from __future__ import annotations

import secrets


def new_replica_id(name: str) -> str:
    """Another one each time."""
    return f"{name}#{secrets.token_hex(4)}"


def replica_name(identity: str) -> str:
    """The name that the identity is of."""
    return identity.rpartition("#")[0] or identity
