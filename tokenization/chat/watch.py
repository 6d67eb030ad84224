"""How long one rendering may take and how much it may make, and who still waits for it.

Templates render in threads, and nothing can stop a thread from outside. So the sandbox tells the
watch of its thread about every step, and the watch raises an exception beyond a limit.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tokenization.errors import CallerGoneError, TemplateLimitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_T = TypeVar("_T")

# A text passes several macros before it is part of the output, and each of them counts it.
_WORK_FACTOR = 16
_STEP = 4  # what a step of a loop or a call counts, in characters
_LOOK_EVERY = 64 * _STEP  # between two looks at the clock


@dataclass(frozen=True)
class RenderLimits:
    """Limits of one rendering of a template."""

    seconds: float = 5.0
    """Of the processor's time, so that a busy machine fails nobody."""
    text_bytes: int = 8 * 1024**2
    """Size of the rendered text, and of every value that the template makes."""


@dataclass
class Caller:
    """Whoever waits for a prompt. Threads look at it, the event loop changes it."""

    deadline: float | None = None
    """Of `time.monotonic`, in seconds; None if the caller waits for ever."""
    is_gone: bool = False
    """Whether the caller has been cancelled."""
    queue_seconds: float = 0.0
    """How long its texts have waited for a thread."""
    work_seconds: float = 0.0
    """How long threads have worked on them."""

    def seconds_left(self) -> float | None:
        """Return the seconds until the deadline, None if there is none."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def check(self) -> None:
        """Raise CallerGoneError if nobody waits any more."""
        if self.is_gone or (self.deadline is not None and time.monotonic() > self.deadline):
            raise CallerGoneError


class RenderWatch:
    """Watches one rendering, in the thread that makes the watch.

    Args:
        limits: of the rendering.
        caller: who waits for it; None if nobody can go away.
    """

    def __init__(self, limits: RenderLimits, caller: Caller | None = None) -> None:
        self.limits = limits
        self._caller = caller or Caller()
        self._left = self._next_look = _WORK_FACTOR * limits.text_bytes
        self._began: float | None = None
        self._look_at = time.monotonic() + limits.seconds
        if self._caller.deadline is not None:
            self._look_at = min(self._look_at, self._caller.deadline)

    def spend(self, characters: int = _STEP) -> None:
        """Count what the template has made or done.

        Raises:
            TemplateLimitError: it has taken too long or made too much.
            CallerGoneError: nobody waits for the text any more.
        """
        self._left -= characters
        if self._left < self._next_look:
            self._look()

    def _look(self) -> None:
        """Look at the clock and at the caller, which takes too long for every step."""
        if self._left < 0:
            raise TemplateLimitError(f"does more work than a text of {self.size} may take")
        self._next_look = max(0, self._left - _LOOK_EVERY)
        if self._caller.is_gone or time.monotonic() > self._look_at:
            self._check_time()

    def measure(self) -> None:
        """Measure the processor's time from now on, for which some kernels take 50 microseconds.

        Without it the watch does so when the clock has reached the limit: what has the processor
        for itself then takes twice the limit.
        """
        self._began = time.thread_time()

    def _check_time(self) -> None:
        self._caller.check()
        if self._began is None:
            self.measure()
        left = self.limits.seconds - (time.thread_time() - (self._began or 0.0))
        if left <= 0:
            raise TemplateLimitError(f"took longer than {self.limits.seconds:g} s")
        self._look_at = time.monotonic() + left  # other threads had the processor
        if self._caller.deadline is not None:
            self._look_at = min(self._look_at, self._caller.deadline)

    def counted(self, items: Iterable[_T]) -> Iterator[_T]:
        """Yield the items of a loop and count each of them. Raises as `spend`."""
        for item in items:
            self._left -= _STEP  # as `spend`, without the cost of a call
            if self._left < self._next_look:
                self._look()
            yield item

    def check_text(self, text: str) -> None:
        """Raise TemplateLimitError if the rendered text is too long."""
        limit = self.limits.text_bytes
        if 4 * len(text) > limit and len(text.encode(errors="surrogatepass")) > limit:
            raise TemplateLimitError(f"makes a text longer than {self.size}")

    @property
    def size(self) -> str:
        """The limit of texts, in words."""
        return f"{self.limits.text_bytes} bytes (limits.text_bytes)"


class _Thread(threading.local):
    watch: RenderWatch | None = None


_thread = _Thread()
_NO_RENDERING = RenderLimits()


@contextmanager
def watched(watch: RenderWatch) -> Iterator[None]:
    """Let a watch see the renderings of this thread."""
    _thread.watch, before = watch, _thread.watch
    try:
        yield
    finally:
        _thread.watch = before


def current_watch() -> RenderWatch | None:
    """Return this thread's watch, None outside of renderings: while a template is compiled."""
    return _thread.watch


def check_size(size: float) -> None:
    """Raise TemplateLimitError if a value of `size` characters or entries is too large."""
    watch = _thread.watch
    limits = _NO_RENDERING if watch is None else watch.limits
    if size > limits.text_bytes:
        raise TemplateLimitError(
            f"makes something longer than {limits.text_bytes} bytes (limits.text_bytes)"
        )
