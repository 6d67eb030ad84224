"""Runs the replays that streams request.

In path order:

    replays  one replay for each stream, fed with the engine's answer
    slots    which of them may run at the same time
"""

from __future__ import annotations

from kvevents.replaying.replays import Replays

__all__ = ["Replays"]
