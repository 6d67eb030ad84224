"""File descriptors of this process: sources must leave some for callers and the store."""

from __future__ import annotations

import os
import resource

_SHARE_LEFT = 4  # a fourth of what the limit allows


def raise_limit() -> None:
    """Let this process open as many files as the system lets it, not as a shell does by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def scarcity() -> str:
    """Why one more source would take what others need; empty if it would not.

    Without any descriptor no call is answered, and every connection to be accepted is logged.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return ""
    try:
        lowest = os.open(os.devnull, os.O_RDONLY)  # the system gives the lowest that is free
    except OSError:
        lowest = limit
    else:
        os.close(lowest)
    most = limit - limit // _SHARE_LEFT
    return (
        "" if lowest < most else f"of {limit} file descriptors {lowest} are open; raise ulimit -n"
    )
