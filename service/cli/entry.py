"""Where the `kvatlas` command begins: nothing slow is imported before signals are handled."""

from __future__ import annotations

import gc
import os

from service.cli.interruption import end_at_once


def main() -> int:
    """Import the commands, run one, and return its exit status."""
    end_at_once()
    # Its C core would log to the same place, in a format of its own, whatever strangers do wrong.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    gc.disable()  # until a command runs: what is imported stays
    from service.cli.main import main as run

    try:
        return run()
    finally:
        gc.freeze()  # the process ends: nothing needs to be looked through once more
        end_at_once()
