"""The service as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

KVATLAS = [sys.executable, "-P", "-m", "service"]  # -P: what is installed, not what lies here


class Service:
    """A `kvatlas serve` process on free ports; if it `binds`, pods connect to `events`."""

    def __init__(self, *arguments: str, binds: bool = True) -> None:
        self.process = subprocess.Popen(
            [
                *KVATLAS,
                "serve",
                "--listen=127.0.0.1:0",
                "--metrics-listen=",
                *(["--bind=tcp://127.0.0.1:0"] if binds else []),
                "--log-format=json",
                *arguments,
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.events = ""
        self.log: list[dict[str, object]] = []
        while not any(line["event"] == "serving" for line in self.log):
            self.log.append(json.loads(self._line()))
        self.address = str(self.log[-1]["addresses"][0])  # type: ignore[index]
        self.events = str(next(e["endpoint"] for e in self.log if e["event"] == "subscribed"))

    def _line(self) -> str:
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        if not line:
            raise AssertionError(f"kvatlas serve ended with {self.process.wait()}: {self.log}")
        return line

    def until(self, event: str) -> None:
        """Wait for a line of the log."""
        while json.loads(self._line())["event"] != event:
            pass

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=30)
        return self.process.returncode, rest
