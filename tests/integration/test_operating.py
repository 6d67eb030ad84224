"""What an operator does: forget, resync, record and replay, with the real command."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from support.deadlines import DEADLINE_SECONDS
from support.services.process import KVATLAS_COMMAND, ServiceProcess

POD = "10.0.0.1:8000"
TOKENS = ",".join(map(str, range(64)))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KVATLAS_COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def stored(sequence: int) -> list[bytes]:
    """A frame that stores one block of 16 tokens, the parent of the next number's."""
    event = {
        "type": "BlockStored",
        "block_hashes": [sequence + 1],
        "parent_block_hash": sequence or None,
        "token_ids": list(range(16 * sequence, 16 * sequence + 16)),
        "block_size": 16,
        "medium": "GPU",
    }
    payload = msgpack.packb([float(sequence), [event], 0])
    return [f"kv@{POD}@m".encode(), sequence.to_bytes(8, "big"), payload]


@contextmanager
def publisher(service: ServiceProcess) -> Iterator[Callable[[int], object]]:
    """A function that publishes the frame of a number."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.connect(service.events)
        assert socket.poll(30_000)
        yield lambda sequence: socket.send_multipart(stored(sequence))


@pytest.fixture
def service() -> Iterator[ServiceProcess]:
    running = ServiceProcess()
    yield running
    running.stop()


def pods(service: ServiceProcess) -> dict[str, object]:
    answer = json.loads(run("pods", "--json", f"--server={service.admin}").stdout)
    return {pod["pod"]: pod["ranks"][0] for pod in answer["pods"]}


def test_an_operator_can_forget_a_pod(service: ServiceProcess) -> None:
    with publisher(service) as publish:
        publish(0)
        service.until_logged("worker_joined")
        done = run("pods", f"--server={service.admin}", "forget", POD)
        assert (done.returncode, done.stdout) == (0, f"{POD} is forgotten\n")
        assert pods(service) == {}
        publish(1)
        service.until_logged("worker_joined")
        assert pods(service)[POD]["trust_state"] == "TRUST_STATE_PARTIAL"  # type: ignore[index]
    again = run("pods", "forget", "nobody:1", "--server", service.admin)
    assert again.returncode == 1
    assert "NOT_FOUND: there is no pod 'nobody:1'" in again.stderr


def test_a_pod_without_a_replay_socket_is_emptied_by_a_resync(service: ServiceProcess) -> None:
    with publisher(service) as publish:
        publish(0)
        service.until_logged("worker_joined")
        done = run("pods", "resync", POD, f"--server={service.admin}")
        assert done.returncode == 0, done.stderr
        assert f"{POD} rank 0: no replay socket" in done.stdout
        score = run("score", "--model=m", f"--server={service.address}", "--tokens", TOKENS)
        assert f"{POD}    0.0" in score.stdout
    assert run("pods", "resync", "nobody:1", f"--server={service.admin}").returncode == 1


@pytest.mark.parametrize("name", ["frames.jsonl", "frames.jsonl.gz"])
def test_a_recording_plays_back_to_the_same_scores(
    service: ServiceProcess, tmp_path: Path, name: str
) -> None:
    file = str(tmp_path / name)
    recorder = subprocess.Popen(
        [
            *KVATLAS_COMMAND,
            *("record", f"--server={service.admin}", "--output", file, "--frames", "4"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert recorder.stderr is not None
    assert "recording" in recorder.stderr.readline()
    with publisher(service) as publish:
        for sequence in range(4):
            publish(sequence)
        _, said = recorder.communicate(timeout=60)
    assert (recorder.returncode, said) == (0, "kvatlas: recorded 4 frame(s)\n")
    other = ServiceProcess()
    try:
        done = run("replay", file, "--connect", other.events)
        assert done.returncode == 0, done.stderr
        assert "replayed 4 frame(s)" in done.stderr
        other.until_logged("worker_joined")
        score = run("score", "--model=m", f"--server={other.address}", "--tokens", TOKENS)
        assert f"{POD}    4.0" in score.stdout, score.stdout
        assert "stale (disconnected)" in score.stdout  # whoever published it has gone
    finally:
        other.stop()


def test_a_recording_loses_nothing_to_a_service_that_is_slow_to_listen(tmp_path: Path) -> None:
    """As many frames as no queue holds, published as fast as they are taken."""
    file = tmp_path / "many.jsonl"
    frames = [stored(sequence) for sequence in range(5_000)]
    file.write_text(
        "".join(
            json.dumps({"kind": "frame", "at": 0.0, "frames": [part.hex() for part in frame]})
            + "\n"
            for frame in frames
        )
    )
    service = ServiceProcess()
    try:
        done = run("replay", str(file), "--connect", service.events)
        assert done.returncode == 0, done.stderr
        deadline = time.monotonic() + DEADLINE_SECONDS
        rank: dict[str, Any] = {}
        while (rank.get("last_sequence"), rank.get("trust_reason")) != ("4999", "disconnected"):
            assert time.monotonic() < deadline, rank
            rank = dict(pods(service).get(POD) or {})  # type: ignore[call-overload]
        assert "missedFrames" not in rank
        assert rank["blocks_by_tier"] == {"gpu": "5000"}
    finally:
        service.stop()


def test_record_and_replay_say_what_is_wrong(service: ServiceProcess, tmp_path: Path) -> None:
    server = f"--server={service.admin}"
    nowhere = run("record", server, "--endpoint=tcp://nowhere:1")
    assert nowhere.returncode == 1
    assert "INVALID_ARGUMENT: endpoint 'tcp://nowhere:1' is not configured" in nowhere.stderr
    unwritable = run("record", server, f"--output={tmp_path}/no/such/file")
    assert unwritable.returncode == 1
    assert "No such file or directory" in unwritable.stderr
    silence = run("record", server, "--seconds=1")
    assert (silence.returncode, silence.stdout) == (0, "")
    torn = tmp_path / "torn.jsonl"
    torn.write_text('{"kind": "frame", "frames": ["00"\n')
    bad = run("replay", str(torn), "--connect", service.events)
    assert bad.returncode == 1
    assert "line 1 is not a recorded frame" in bad.stderr
    missing = run("replay", str(tmp_path / "missing"), "--connect", service.events)
    assert "No such file or directory" in missing.stderr
    whole = tmp_path / "whole.jsonl"
    whole.write_text('{"kind": "frame", "frames": ["00"]}\n')
    alone = run("replay", str(whole), "--bind=tcp://127.0.0.1:0", "--timeout=0.2")
    assert alone.returncode == 1
    assert "no subscriber at" in alone.stderr
