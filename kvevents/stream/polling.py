"""When to ask an engine's replay socket for frames that may have been lost without a trace."""

from __future__ import annotations

_LONGEST_REBUILD_WAIT = 64  # polls
_URGENT_POLL_SECONDS = 1.0


class PollSchedule:
    """The times of one worker's next poll and next rebuild (`time.monotonic`).

    A rebuild applies everything again, to make up for losses. Each one that does not help doubles
    the time until the next.
    """

    def __init__(self) -> None:
        self._next_poll = 0.0
        self._next_rebuild = 0.0
        self._rebuild_wait = 1  # polls

    def is_due(self, now: float) -> bool:
        """Whether it is time to poll."""
        return now >= self._next_poll

    def allows_rebuild(self, now: float) -> bool:
        """Whether the poll may ask for everything again."""
        return now >= self._next_rebuild

    def poll_at_once(self) -> None:
        """Poll at the next tick."""
        self._next_poll = 0.0

    def poll_soon(self, now: float) -> None:
        """Poll within a second or so."""
        self._next_poll = min(self._next_poll, now + _URGENT_POLL_SECONDS)

    def on_polled(self, now: float, interval: float, *, urgent: bool) -> None:
        """Schedule the next poll.

        Args:
            now: the time of this poll.
            interval: seconds between polls when all is well.
            urgent: whether nothing vouches for the worker at present.
        """
        self._next_poll = now + (min(interval, _URGENT_POLL_SECONDS) if urgent else interval)

    def on_rebuild(self, now: float, interval: float) -> None:
        """Schedule the next rebuild, later than the last time."""
        self._next_rebuild = now + interval * self._rebuild_wait
        self._rebuild_wait = min(2 * self._rebuild_wait, _LONGEST_REBUILD_WAIT)

    def on_exact(self) -> None:
        """Forget that earlier rebuilds did not help."""
        self._rebuild_wait = 1
