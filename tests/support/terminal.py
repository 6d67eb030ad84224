"""Runs a command on a terminal, as a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from typing import TYPE_CHECKING, NamedTuple

from support.deadlines import DEADLINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


Step = tuple[str, "Callable[[subprocess.Popen[bytes]], object]"]
"""A text, and what to do with the command once it has been shown."""


class Shown(NamedTuple):
    """What a command did on its terminal."""

    status: int
    text: str
    """Everything that the terminal was sent."""


def on_terminal(command: Sequence[str], *steps: Step, columns: int = 120) -> Shown:
    """Run a command to its end, and do each step once its text has been shown, in their order."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(theirs)
    timer = threading.Timer(DEADLINE_SECONDS, process.kill)
    timer.start()
    text, remaining = "", list(steps)
    while part := _read(ours):
        text += part.decode(errors="replace")
        while remaining and remaining[0][0] in text:
            remaining.pop(0)[1](process)
    os.close(ours)
    status = process.wait()
    timer.cancel()
    return Shown(status, text)


def signalled(text: str, number: int = signal.SIGINT) -> Step:
    """The step that sends the command a signal once it has shown this text."""
    return text, lambda process: process.send_signal(number)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the command has closed the other side
        return b""
