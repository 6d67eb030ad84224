"""What SIGINT and SIGTERM do to a command: they end it at once, or let it clean up first.

What a signal's handler raises is lost wherever Python or an extension ignores exceptions: in the
callback of a weak reference, of which imports have many, or while a class is built for validation.
The command would go on, or fail with the strangest of errors. So a signal ends the process without
a word, but where there are files or a terminal to give back; there commands wait most of the time.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_at_once() -> None:
    """Let a signal end the process from now on, unless whoever started it has it ignored.

    Python would show where Ctrl-C came, and the first process of a container does not even end by
    SIGTERM until it handles it.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


@contextmanager
def unwinding() -> Iterator[None]:
    """Let a signal raise KeyboardInterrupt or SystemExit, so that what is within cleans up."""
    former = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        if former[number] is not signal.SIG_IGN:
            signal.signal(number, _unwind)
    try:
        yield
    finally:
        for number in SIGNALS:
            signal.signal(number, former[number])


def kill_children() -> None:
    """Kill the processes that this one has started, as far as the operating system names them."""
    for file in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread, or the child, has gone
            for child in file.read_text().split():
                os.kill(int(child), signal.SIGKILL)


def _end(number: int, _frame: object) -> None:
    kill_children()
    os._exit(128 + number)


def _unwind(number: int, _frame: object) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
