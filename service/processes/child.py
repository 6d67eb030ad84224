"""One process: its start, its end, and when it is started again."""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import structlog

from service.processes.told import Told, ToldListener

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.processes.entrance import Entrance
    from service.processes.told import SharedConfiguration

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0  # seconds until an ended process is started again
_LASTED = 60.0  # seconds after which an end is not one of a row
_ABORT_SECONDS = 2.0  # to say where it is stuck

_log = structlog.get_logger("kvatlas.service")


class StartFailedError(Exception):
    """A process ended before it was ready for the first time; it has said what is wrong.

    Attributes:
        status: its exit status.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"a process ended before it was ready, with status {status}")
        self.status = status


class Child:
    """Runs a process, again whenever it ends, until it is stopped.

    Args:
        number: of the process.
        command: starts it; what it is told follows.
        replica: its name among the replicas that share the index.
        entrances: where its connections come in.
        configuration: of the service as a whole.
    """

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        replica: str,
        entrances: Sequence[Entrance],
        configuration: SharedConfiguration,
    ) -> None:
        self._number = number
        self._command = command
        self._replica = replica
        self._entrances = entrances
        self._configuration = configuration
        self._process: asyncio.subprocess.Process | None = None
        self._restarts = 0
        self._is_stopping = asyncio.Event()
        self._told = 0  # the signal that ends the service, once it has come

    async def run(self, store_url: str) -> int:
        """Run it until it is stopped. Returns its exit status. Raises StartFailedError, OSError."""
        delay = _FIRST_DELAY
        while True:
            started = asyncio.get_running_loop().time()
            status = await self._status(store_url)
            if self._is_stopping.is_set():
                had_not_started = status in {-self._told, 128 + self._told}
                return 0 if had_not_started else status
            if not self._has_been_ready and (status > 0 or not self._has_any_been_ready):
                raise StartFailedError(status)
            if asyncio.get_running_loop().time() - started > _LASTED:
                delay = _FIRST_DELAY
            seconds = delay * random.uniform(0.5, 1)  # noqa: S311 - no secret
            _log.error(
                "process_ended", process=self._number, status=status, restarts_in=round(seconds, 1)
            )
            try:
                await asyncio.wait_for(self._is_stopping.wait(), seconds)
            except TimeoutError:
                delay = min(2 * delay, _LONGEST_DELAY)
                self._restarts += 1
            else:
                return 0

    def stop(self, number: int) -> None:
        """Pass the signal on that ends the service."""
        self._told = number
        self._is_stopping.set()
        self._send(number)

    def abort(self) -> None:
        """End a process that is stuck, which says where; it is started again."""
        self._send(signal.SIGABRT)
        if (process := self._process) is not None:
            asyncio.get_running_loop().call_later(_ABORT_SECONDS, _kill, process)

    def kill(self) -> None:
        """End it at once."""
        self._is_stopping.set()
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    @property
    def _has_been_ready(self) -> bool:
        return any(self._number in entrance.have_been_ready for entrance in self._entrances)

    @property
    def _has_any_been_ready(self) -> bool:
        return any(entrance.have_been_ready for entrance in self._entrances)

    async def _status(self, store_url: str) -> int:
        try:
            return await self._run_once(store_url)
        except OSError as error:  # no memory, or too many processes or files, for now
            if not self._has_been_ready:
                raise
            _log.error("process_not_started", process=self._number, detail=str(error))
            return 1

    async def _run_once(self, store_url: str) -> int:
        with ExitStack() as inherited, ExitStack() as admitted:
            listeners = {}
            for entrance in self._entrances:
                there = inherited.enter_context(entrance.admit(self._number))
                admitted.callback(entrance.dismiss, self._number)
                listeners[entrance.name] = ToldListener(
                    descriptor=there.fileno(), addresses=tuple(entrance.addresses)
                )
            told = Told(
                configuration=self._configuration.descriptor,
                number=self._number,
                restarts=self._restarts,
                replica=self._replica,
                store_url=store_url,
                listeners=listeners,
            )
            # In a session of its own: Ctrl-C reaches the supervisor, which passes it on once.
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command,
                "--process",
                told.model_dump_json(),
                pass_fds=[told.configuration, *(each.descriptor for each in listeners.values())],
                start_new_session=True,
            )
            inherited.close()
            _log.info("process_started", process=self._number, pid=process.pid)
            if self._is_stopping.is_set():  # meanwhile
                process.send_signal(self._told)
            return await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
