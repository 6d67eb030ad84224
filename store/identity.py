"""The identity of a replica in the store: its name, and which process of that name it is.

A process that was killed keeps what it owned until its lease has run out: the next process of the
same name knows nothing of it. Sources are assigned by name, so that a replica that is started again
has the sources it had.
"""

from __future__ import annotations

import secrets


def new_replica_id(name: str) -> str:
    """Return a new identity for a process of that name."""
    return f"{name}#{secrets.token_hex(4)}"


def replica_name(identity: str) -> str:
    """Return the name within an identity."""
    return identity.rpartition("#")[0] or identity
