"""The index on disk: a restart does not forget, and a file that is not right is refused."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import zmq
from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_DEGRADED, TRUST_STATE_EXACT
from support.deadlines import DEADLINE_SECONDS
from support.engines.faulty import Faults, FaultyEngine
from support.engines.simulated import Prompt, SimulatedEngine, block_contents, leading_blocks
from support.ports import free_port
from support.services.process import ServiceProcess
from support.services.running import RunningService, local_configuration, running_service

from service import snapshot
from service.config import ConfigurationError
from service.snapshot import KeySettings, read_snapshot

SIZE = 8
POD = "127.0.0.2:8000"
MODEL = "sim/model"
PROMPTS = [Prompt(tuple(range(n, n + SIZE * 6))) for n in range(0, 6000, 1000)]


@asynccontextmanager
async def pod(replay: str = "whole") -> AsyncIterator[FaultyEngine]:
    """An engine that outlives the service."""
    with zmq.Context() as context:
        engine = SimulatedEngine(POD, MODEL, SIZE, 1000, random.Random(1), now=time.time)
        faulty = FaultyEngine(
            context,
            engine,
            f"tcp://127.0.0.1:{free_port()}",
            f"tcp://127.0.0.2:{free_port()}",
            Faults(replay=replay),
            random.Random(2),
        )
        await faulty.start()
        try:
            yield faulty
        finally:
            await faulty.close()


def configured(faulty: FaultyEngine, path: Path, **snapshot: Any) -> Any:
    replay = "" if faulty.faults.replay == "none" else faulty.replay_endpoint
    source = {"endpoint": faulty.endpoint, "pod": POD, "model": MODEL, "replay": replay}
    return local_configuration(
        metrics={"listen": ""},
        sources=[source],
        index={"block_size": SIZE},
        snapshot={"path": str(path), **snapshot},
        events={"poll_seconds": 0.3, "replay_timeout_seconds": 0.5},
    )


async def serve(faulty: FaultyEngine, *prompts: Prompt) -> None:
    for prompt in prompts:
        faulty.engine.serve(prompt)
    faulty.publish()


async def caught_up(
    service: RunningService, faulty: FaultyEngine, state: int = TRUST_STATE_EXACT
) -> None:
    await service.until(
        lambda pods: (
            (rank := pods[POD, 0]).trust_state == state
            and rank.last_sequence == len(faulty.engine.frames) - 1
        )
    )


async def scores(service: RunningService, faulty: FaultyEngine) -> list[tuple[int, int]]:
    """Matched blocks as answered, and as they are, of every prompt."""
    stub = scoring_pb2_grpc.ScoringServiceStub(service.channel)
    held = {content for content, copies in faulty.engine.copies.items() if copies}
    found = []
    for prompt in PROMPTS:
        request = scoring_pb2.ScoreRequest(model=MODEL)
        request.prompt.token_ids.ids.extend(prompt.tokens)
        (score,) = (await stub.Score(request)).pods
        found.append((score.matched_blocks, leading_blocks(block_contents(prompt, SIZE), held)))
    return found


def check(found: list[tuple[int, int]]) -> None:
    assert any(said for said, _ in found)
    assert all(said == truth for said, truth in found), found


async def first_life(faulty: FaultyEngine, path: Path) -> None:
    """A service that hears two prompts and stops."""
    async with running_service(configured(faulty, path)) as service:
        await faulty.until_subscribed()
        await serve(faulty, *PROMPTS[:2])
        await caught_up(service, faulty)


@pytest.mark.parametrize("meanwhile", ["nothing", "more", "cleared", "restarted"])
async def test_a_restart_forgets_nothing_where_there_is_a_replay(
    tmp_path: Path, meanwhile: str
) -> None:
    async with pod() as faulty:
        await first_life(faulty, tmp_path / "snapshot")
        match meanwhile:
            case "more":
                await serve(faulty, *PROMPTS[2:4])
            case "cleared":
                faulty.engine.reset()
                await serve(faulty, PROMPTS[3])
            case "restarted":
                await faulty.restart(0)
                await serve(faulty, *PROMPTS[1:5])  # past the number of the first life
        async with running_service(configured(faulty, tmp_path / "snapshot")) as service:
            await faulty.until_subscribed()
            await caught_up(service, faulty)
            check(await scores(service, faulty))
            pods = await service.pods()
            assert pods[POD, 0].restarts == (meanwhile == "restarted")


async def test_a_restart_without_a_replay_keeps_the_index_and_marks_it(tmp_path: Path) -> None:
    async with pod("none") as faulty:
        await first_life(faulty, tmp_path / "snapshot")
        async with running_service(configured(faulty, tmp_path / "snapshot")) as service:
            rank = (await service.pods())[POD, 0]
            assert rank.trust_reason in ("restored", "disconnected")  # it is connecting
            check(await scores(service, faulty))
            await faulty.until_subscribed()
            await service.until(lambda pods: pods[POD, 0].trust_reason == "restored")
            assert (await service.pods())[POD, 0].trust_state == TRUST_STATE_DEGRADED
            for _ in range(16):  # by then an offload tier would have shown itself
                faulty.engine.reset()
                await serve(faulty, PROMPTS[4])
            await caught_up(service, faulty)  # a known empty start
            check(await scores(service, faulty))


async def test_a_pod_that_is_not_configured_any_more_is_left_out(tmp_path: Path) -> None:
    async with pod() as faulty:
        await first_life(faulty, tmp_path / "snapshot")
        other = local_configuration(
            metrics={"listen": ""},
            index={"block_size": SIZE},
            snapshot={"path": str(tmp_path / "snapshot")},
        )
        async with running_service(other) as service:
            assert await service.pods() == {}


# What is refused


def truncated(at: float) -> Callable[[bytes], bytes]:
    return lambda whole: whole[: int(len(whole) * at)]


def with_a_wrong_bit(whole: bytes) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :]


REFUSED: dict[str, tuple[Callable[[bytes], bytes] | None, dict[str, Any], str]] = {
    "torn at the start": (truncated(0.0), {}, "is not a snapshot"),
    "torn in the first line": (lambda whole: whole[:20], {}, "is not a snapshot"),
    "torn in the header": (lambda whole: whole[:60], {}, "is torn"),
    "torn in the middle": (truncated(0.5), {}, "is torn"),
    "torn at the end": (lambda whole: whole[:-1], {}, "is torn"),
    "without its end": (lambda whole: whole[:-21], {}, "is torn"),
    "damaged": (with_a_wrong_bit, {}, "is damaged"),
    "foreign": (lambda _: b"\x7fELF" + bytes(1000), {}, "is not a snapshot"),
    "of another version": (
        lambda whole: whole.replace(b"version 2", b"version 7", 1),
        {},
        "has version 7; only version 2 can be read",
    ),
    "of another seed": (None, {"index": {"hash_seed": "other"}}, "made with hash_seed ''"),
    "of other copies": (None, {"index": {"count_copies": False}}, "made with count_copies True"),
    "of other blocks": (None, {"index": {"block_size": 16}}, "made with blocks of 8 tokens"),
    "too large": (None, {"index": {"limit": 1024**2}}, "bytes, and the limit is 1,048,576"),
    "too old": (None, {"snapshot": {"oldest_seconds": 1e-6}}, "s old"),
}


@pytest.mark.parametrize("fault", REFUSED)
async def test_a_damaged_snapshot_is_refused_and_put_aside(tmp_path: Path, fault: str) -> None:
    mangle, settings, said = REFUSED[fault]
    path = tmp_path / "snapshot"
    async with pod() as faulty:
        await first_life(faulty, path)
        if fault == "too large":
            await grown(faulty, path)
    if mangle is not None:
        path.write_bytes(mangle(path.read_bytes()))
    before = path.read_bytes()
    configuration = local_configuration(
        metrics={"listen": ""},
        index={"block_size": SIZE, **settings.get("index", {})},
        snapshot={"path": str(path), **settings.get("snapshot", {})},
    )
    with structlog.testing.capture_logs() as logs:
        async with running_service(configuration) as service:
            assert await service.pods() == {}
    (refused,) = [line for line in logs if line["event"] == "snapshot_refused"]
    assert said in refused["detail"]
    assert (tmp_path / "snapshot.refused").read_bytes() == before


async def test_a_refused_snapshot_that_cannot_be_moved_does_not_fail_the_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "snapshot"
    path.write_bytes(b"not a snapshot")
    (tmp_path / "snapshot.refused").mkdir()  # no file can be moved there, as in a read-only place
    configuration = local_configuration(metrics={"listen": ""}, snapshot={"path": str(path)})
    with structlog.testing.capture_logs() as logs:
        async with running_service(configuration) as service:
            assert await service.pods() == {}
    (refused,) = [line for line in logs if line["event"] == "snapshot_refused"]
    assert refused["log_level"] == "warning"
    assert refused["moved"].startswith("no: ")


async def grown(faulty: FaultyEngine, path: Path) -> None:
    """Fill the index until it takes more than a mebibyte."""
    faulty.engine.capacity = 100_000
    async with running_service(configured(faulty, path)) as service:
        await faulty.until_subscribed()
        source = random.Random(3)
        for _ in range(40):
            tokens = tuple(source.randrange(1000) for _ in range(SIZE * 500))
            faulty.engine.serve(Prompt(tokens))
        faulty.publish()
        await caught_up(service, faulty)


async def test_a_missing_snapshot_directory_is_reported_before_anything_starts(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigurationError, match="there is no directory"):
        async with running_service(
            local_configuration(snapshot={"path": str(tmp_path / "no" / "snapshot")})
        ):
            pass


# While it is being written


async def test_requests_are_answered_and_no_event_is_lost_while_a_snapshot_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "snapshot"
    slow, go_on = threading.Event(), threading.Event()
    write_all = snapshot._write_all

    def write_slowly(file: Any, batch: bytes) -> None:
        slow.set()
        assert go_on.wait(DEADLINE_SECONDS)
        write_all(file, batch)

    async with pod() as faulty:
        await first_life(faulty, path)
        async with running_service(configured(faulty, path)) as service:
            await faulty.until_subscribed()
            await caught_up(service, faulty)
            before = len(faulty.engine.frames)
            monkeypatch.setattr(snapshot, "_write_all", write_slowly)
            snapshots = service.application.snapshots
            assert snapshots is not None
            writing = asyncio.create_task(snapshots.write())
            await asyncio.to_thread(slow.wait, DEADLINE_SECONDS)
            await serve(faulty, *PROMPTS[2:])
            for _ in range(20):
                assert [said for said, _ in await scores(service, faulty)] == [6, 6, 0, 0, 0, 0]
            go_on.set()
            await writing
            assert snapshots.written == 1
            await caught_up(service, faulty)
            check(await scores(service, faulty))
            assert last_frame(path) == before - 1


async def test_snapshots_are_written_periodically_and_failures_are_counted(tmp_path: Path) -> None:
    directory = tmp_path / "disk"
    directory.mkdir()
    path = directory / "snapshot"
    async with (
        pod() as faulty,
        running_service(configured(faulty, path, interval_seconds=0.05)) as service,
    ):
        snapshots = service.application.snapshots
        assert snapshots is not None
        async with asyncio.timeout(DEADLINE_SECONDS):
            while snapshots.written < 2:
                await service.pods()
            assert path.exists()
            shutil.rmtree(directory)
            while not snapshots.failed:
                await service.pods()


# Killed


async def test_a_service_killed_while_it_writes_a_snapshot_has_the_one_before(
    tmp_path: Path,
) -> None:
    await kill(tmp_path, times=5)


@pytest.mark.soak
async def test_a_service_killed_fifty_times_while_it_writes_a_snapshot_has_the_one_before(
    tmp_path: Path,
) -> None:
    await kill(tmp_path, times=50)


def last_frame(path: Path) -> int:
    """The number of the last frame that is in a snapshot, all of which can be read."""
    keys = KeySettings("", count_copies=True, block_size_of=lambda _: SIZE)
    (stream,) = read_snapshot(path, keys, 2**30, {}, 0).streams
    return int(stream["life"]["last"])


def written_at(path: Path) -> int | None:
    """When a file was last written, in nanoseconds; None if there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


async def kill(directory: Path, times: int) -> None:
    """Kill -9 in the middle of a write: what is there is whole, no older, and true."""
    path, middle, before = (directory / name for name in ("snapshot", "snapshot.new", "before"))
    source = random.Random(times)
    killed = 0
    async with pod() as faulty:
        faulty.engine.capacity = 100_000
        config = directory / "kvatlas.toml"
        config.write_text(f"""
            index.block_size = {SIZE}
            snapshot = {{ path = "{path}", interval_seconds = 0.05, oldest_seconds = 0 }}
            events.poll_seconds = 0.3
            [[sources]]
            endpoint = "{faulty.endpoint}"
            pod = "{POD}"
            model = "{MODEL}"
            replay = "{faulty.replay_endpoint}"
        """)
        for tokens in range(0, 100_000, 2_000):
            faulty.engine.serve(Prompt(tuple(range(tokens, tokens + 2_000))))
        prompts = itertools.count(1_000_000, SIZE * 6)
        while killed < times:
            left = written_at(middle)
            process = ServiceProcess("--config", str(config), binds=False)
            await faulty.until_subscribed()
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not path.exists() or written_at(middle) in (None, left):
                    first = next(prompts)  # what has not changed is not written
                    await serve(faulty, Prompt(tuple(range(first, first + SIZE * 6))))
            shutil.copyfile(path, before)  # to be read later: what is being written would be done
            for _ in range(source.randrange(200)):
                middle.exists()
            process.stop(signal.SIGKILL)
            killed += written_at(middle) not in (None, left)
            assert last_frame(path) >= last_frame(before)
        async with running_service(configured(faulty, path)) as service:
            await caught_up(service, faulty)
            check(await scores(service, faulty))
