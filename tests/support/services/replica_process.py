"""A replica of the service as a process, to be killed, paused and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.deadlines import DEADLINE_SECONDS
from support.ports import free_port
from support.services.process import KVATLAS_COMMAND
from support.services.running import RunningService

if TYPE_CHECKING:
    from service.application import Application


class ReplicaProcess:
    """`kvatlas serve` with a configuration file, on an address of its own."""

    def __init__(
        self,
        name: str,
        configuration: str,
        port: int,
        folder: Path,
        host: str = "127.0.0.1",
        lame_duck_seconds: float = 0.0,
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self._lame_duck_seconds = lame_duck_seconds
        self.log = folder / f"{name}.log"
        self._file = folder / f"{name}.toml"
        self._file.write_text(configuration)
        self._process: subprocess.Popen[bytes] | None = None
        self._admin_port = free_port()
        self.channel, self.admin = [
            grpc.aio.insecure_channel(
                address,
                options=[
                    ("grpc.initial_reconnect_backoff_ms", 50),
                    ("grpc.max_reconnect_backoff_ms", 200),
                    ("grpc.use_local_subchannel_pool", 1),
                ],
            )
            for address in (f"{host}:{port}", f"127.0.0.1:{self._admin_port}")
        ]
        self.paused = False

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        flags = [
            f"--listen={self.host}:{self.port}",
            f"--admin-listen=127.0.0.1:{self._admin_port}",
            f"--grpc.lame-duck-seconds={self._lame_duck_seconds}",
            "--metrics-listen=",
            "--log-format=json",
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*KVATLAS_COMMAND, "serve", "--config", str(self._file), *flags],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    async def health(self) -> int:
        """The first health status that it answers; fails if the process has ended."""
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                assert self._process is not None
                assert self._process.poll() is None, self.log.read_text()[-3000:]
                try:
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5.0)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.02)
                    continue
                return int(answer.status)

    async def until_serving(self) -> None:
        """Wait until its health is SERVING."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await self.health() != health_pb2.HealthCheckResponse.SERVING:
                pass

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None
        self.paused = False

    def pause(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        if self._process is not None and self.paused:
            os.kill(self._process.pid, signal.SIGCONT)
        self.paused = False

    async def terminate(self) -> None:
        """Send SIGTERM, as Kubernetes does, and wait for the end."""
        assert self._process is not None
        self._process.terminate()
        await asyncio.to_thread(self._process.wait, DEADLINE_SECONDS)
        self._process = None

    def ask_to_stop(self) -> None:
        """Send SIGTERM, and do not wait: it hands its workers over meanwhile."""
        assert self._process is not None
        self._process.terminate()

    async def close(self) -> None:
        self.kill()
        await self.channel.close()
        await self.admin.close()

    def as_service(self) -> RunningService:
        application: Application = None  # type: ignore[assignment]
        return RunningService(application, self.channel, self.admin)
