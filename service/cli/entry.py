"""Where the `kvatlas` command begins: nothing slow is imported before signals are handled."""

from __future__ import annotations

import gc
import os
import signal


def main() -> int:
    """Import the commands, run one, and return its exit status."""
    # Ctrl-C while Python imports would show where it was, and the first process of a container
    # ignores SIGTERM until it handles it.
    heard = [number for number in _HANDLERS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, _leave)
    # Its C core would log to the same place, in a format of its own, whatever strangers do wrong.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    gc.disable()  # until a command runs: what is imported stays
    from service.cli.main import main as run

    try:
        for number in heard:
            signal.signal(number, _HANDLERS[number])
        return run()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        gc.freeze()  # the process ends: nothing needs to be looked through once more
        for number in heard:
            signal.signal(number, _leave)


def _leave(number: int, _frame: object) -> None:
    os._exit(128 + number)


def _unwind(number: int, _frame: object) -> None:
    """End the command so that it closes its files and gives the terminal back."""
    raise SystemExit(128 + number)


# asyncio recognises Python's own handler, and cancels the main task in its place.
_HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _unwind}
