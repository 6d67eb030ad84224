"""Where the `kvatlas` command begins: nothing slow is imported before signals are handled."""

from __future__ import annotations

import os
import signal


def main() -> int:
    """Import the commands, run one, and return its exit status."""
    # Ctrl-C while Python imports would show where it was, and the first process of a container
    # ignores SIGTERM until it handles it.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    # Its C core would log to the same place, in a format of its own, whatever strangers do wrong.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from service.cli.main import main as run

    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


def _leave(number: int, _frame: object) -> None:
    os._exit(128 + number)
