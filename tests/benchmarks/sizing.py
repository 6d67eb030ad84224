"""What deploy/SIZING.md counts: memory of a process, of a full index, of tokenizers; snapshots."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

import pytest
from benchmarks.peer import resident_bytes, until_idle
from benchmarks.rows import row
from benchmarks.service import Process, chain, frame, kvatlas, publisher, stored, wait_for
from support.models.fetched import model_files
from support.stores.servers import store_process

LIMIT = 128 * 1024**2
PODS = 8
MESSAGES = 6_000  # of each pod, of 64 blocks of its own: more than the limit admits
PACE = 50
LOADING = """
import resource, sys
from tokenization.model import load_model
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_model(sys.argv[1], __import__("pathlib").Path(sys.argv[2]), 2**26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def sizing_rows() -> None:
    """All of them."""
    _full_index_rows()
    _fleet_rows()
    for name in ("qwen3", "deepseek_v3"):
        try:
            file = model_files(name) / "tokenizer.json"
        except pytest.skip.Exception as error:
            print(f"tokenizers: {error}")
            return
        command = [sys.executable, "-P", "-c", LOADING, name, str(file)]
        loaded = subprocess.run(command, capture_output=True, text=True, check=True)
        row(
            f"tokenizer {name}: memory once loaded",
            f"{int(loaded.stdout) / 1024:.0f} MiB",
            f"tokenizer.json: {file.stat().st_size / 2**20:.0f} MiB",
            int(loaded.stdout) * 1024 / file.stat().st_size,
            "and its segment cache",
        )


def _full_index_rows() -> None:
    with tempfile.TemporaryDirectory() as folder:
        snapshot = Path(folder) / "index.snapshot"
        arguments = [
            f"--index.limit={LIMIT}",
            f"--snapshot.path={snapshot}",
            "--grpc.lame-duck-seconds=0",
        ]
        with kvatlas(*arguments) as service:
            idle = resident_bytes(service.process.pid)
            _fill(service)
            time.sleep(3)  # in which what the burst took is given back
            grown = resident_bytes(service.process.pid) - idle
            stopping = time.perf_counter()
        stopping = time.perf_counter() - stopping
        size = snapshot.stat().st_size
        starting = time.perf_counter()
        with kvatlas(*arguments):
            starting = time.perf_counter() - starting
    row("an idle process", f"{idle / 2**20:.0f} MiB", "", None, "")
    row(
        "a full index: growth of the process",
        f"{grown / 2**20:.0f} MiB",
        f"index.limit: {LIMIT / 2**20:.0f} MiB",
        grown / LIMIT,
        "",
    )
    row("  stop, with its snapshot", f"{stopping:.1f} s", f"{size / 2**20:.0f} MiB", None, "")
    row("  start, with its snapshot", f"{starting:.1f} s", "", None, "")


def _fleet_rows() -> None:
    """What events cost the replica that applies them, and another one that copies its blocks."""
    for name, messages, blocks in (("64 blocks", 4_000, 64), ("one block", 20_000, 1)):
        frames = chain(random.Random(3), messages, blocks)
        with store_process("valkey") as store:
            shared = f"--store.url=valkey://127.0.0.1:{store.port}"
            with kvatlas(shared) as owner, kvatlas(shared) as other, publisher(owner) as socket:
                before = owner.cpu, other.cpu
                for parts in frames:
                    socket.send_multipart(parts)
                wait_for(owner, {1: messages - 1})
                until_idle(other.process.pid)
                used = owner.cpu - before[0], other.cpu - before[1]
        each = [f"{seconds / messages * 1e6:.0f} us" for seconds in used]
        row(
            f"a fleet: events with {name} a message",
            f"{each[0]} /message",
            f"another replica, for its copy: {each[1]}",
            used[1] / used[0],
            "",
        )


def _fill(service: Process) -> None:
    source = random.Random(1)
    with publisher(service) as socket:
        for number in range(MESSAGES):
            for pod in range(PODS):
                tokens = array("H", source.randbytes(2 * 1024)).tolist()
                hashes = array("Q", source.randbytes(8 * 64)).tolist()
                socket.send_multipart(frame(pod, number, stored(tokens, hashes)))
            if number % PACE == 0:
                wait_for(service, dict.fromkeys(range(PODS), number))
        wait_for(service, dict.fromkeys(range(PODS), MESSAGES - 1))
