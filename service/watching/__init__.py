"""The states of ranks as they change, for those who watch.

In path order:

    pod_watch   finds changes, and tells the watchers
    watcher     the changes that wait for one watcher
    states      the state of a rank, and what can happen to it
"""

from __future__ import annotations

from service.watching.pod_watch import PodWatch, TooManyWatchersError
from service.watching.states import Change, RankChange, RankState

__all__ = ["Change", "PodWatch", "RankChange", "RankState", "TooManyWatchersError"]
