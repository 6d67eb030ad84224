"""`kvatlas serve` as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from support.deadlines import DEADLINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

PYTHON = ["env", "--default-signal=INT", sys.executable]
"""Python that SIGINT interrupts, also where these tests run in the background."""

KVATLAS_COMMAND = [*PYTHON, "-P", "-m", "service"]
"""The command line; -P runs the installed package rather than the one in this directory."""


class ServiceProcess:
    """A `kvatlas serve` process on free ports, which is serving once this object exists."""

    process: subprocess.Popen[str]
    address: str
    """Where it answers calls."""
    admin: str
    """Where it is administered."""
    events: str
    """The endpoint that pods connect to, if it `binds` one."""

    def __init__(
        self,
        *arguments: str,
        binds: bool = True,
        lame_duck_seconds: str = "0",
        command: Sequence[str] = KVATLAS_COMMAND,
        count: int = 1,
    ) -> None:
        """Args: count: how many processes it has that serve."""
        self.process = subprocess.Popen(
            [
                *command,
                "serve",
                "--listen=127.0.0.1:0",
                "--admin-listen=127.0.0.1:0",
                "--metrics-listen=",
                *(["--bind=tcp://127.0.0.1:0"] if binds else []),
                "--log-format=json",
                *arguments,
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                "PYTHONFAULTHANDLER": "1",
                "KVATLAS_GRPC__LAME_DUCK_SECONDS": lame_duck_seconds,
            },
        )
        self.log: list[dict[str, object]] = []
        while sum(line["event"] == "serving" for line in self.log) < count:
            self.log.append(json.loads(self._next_line()))
        self.address = str(self.log[-1]["addresses"][0])  # type: ignore[index]
        self.admin = str(self.log[-1]["admin_addresses"][0])  # type: ignore[index]
        self.events = str(next(e["endpoint"] for e in self.log if e["event"] == "subscribed"))

    def until_logged(self, event: str) -> None:
        """Wait for a line of the log."""
        while json.loads(self._next_line())["event"] != event:
            pass

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal and wait for the end: the exit status and the rest of the log."""
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, rest

    def _next_line(self) -> str:
        """The next line of the log; a process that says nothing for long says where it hangs."""
        assert self.process.stderr is not None
        hangs = threading.Timer(DEADLINE_SECONDS, self.process.send_signal, [signal.SIGABRT])
        hangs.start()
        line = self.process.stderr.readline()
        hangs.cancel()
        if not line.startswith("{"):
            line += self.process.stderr.read()
            raise AssertionError(f"kvatlas serve ended, {self.process.wait()}: {self.log} {line}")
        return line
