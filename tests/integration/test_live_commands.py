"""Commands that go on, or that look different on a terminal."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from kvatlas.v1 import (
    explain_pb2,
    explain_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    scoring_pb2,
    trust_pb2,
)
from support.deadlines import DEADLINE_SECONDS
from support.ports import free_port
from support.services.process import KVATLAS_COMMAND, ServiceProcess
from support.services.published import POD, service_with_blocks
from support.terminal import on_terminal, signalled

METRICS = f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("model")
    with service_with_blocks(folder, f"--metrics-listen={METRICS}") as running:
        yield running


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KVATLAS_COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def test_top_prints_one_picture_where_there_is_no_terminal(service: ServiceProcess) -> None:
    score = ["score", f"--server={service.address}", "--model=m", "--tokens=1"]
    assert run(*score).returncode == 0
    for once in ([], ["--once"]):
        shown = run(
            "top", *once, "--interval=0.05", f"--server={service.admin}", f"--metrics={METRICS}"
        )
        assert shown.returncode == 0, shown.stderr
        assert f"kvatlas {version('kvatlas')} at {service.admin}: 1 pods, 1 ranks" in shown.stdout
        assert re.search(r"trust +exact=1\nblocks +gpu=2\nevents +0\.0 frames/s", shown.stdout)
        assert re.search(r"scores +0\.0/s .* under way", shown.stdout)
        assert re.search(rf"{POD} +0 +m +exact +gpu=2 +0\.0 +\d+\.\ds ago +0\n", shown.stdout)
    assert run("top", "--once", "--server=127.0.0.1:1").returncode == 1


def test_top_without_metrics_shows_the_pods_and_says_what_is_missing(
    service: ServiceProcess,
) -> None:
    shown = run("top", "--interval=0.05", f"--server={service.admin}", "--metrics=127.0.0.1:1")
    assert shown.returncode == 0
    assert "no rates and latencies: no metrics from 127.0.0.1:1" in shown.stdout
    assert POD in shown.stdout


def test_top_goes_on_showing_the_last_picture_when_the_service_is_gone(tmp_path: Path) -> None:
    running = ServiceProcess()
    command = [*KVATLAS_COMMAND, "top", "--interval=0.05", f"--server={running.admin}"]
    shown = on_terminal(
        command,
        ("0 pods, 0 ranks", lambda _: running.stop()),
        signalled("no newer picture: UNAVAILABLE"),
    )
    assert shown.status == 0
    assert shown.text.count("0 pods, 0 ranks") > 1


def test_the_version_of_the_service_is_shown_if_it_can_be_reached(service: ServiceProcess) -> None:
    own = version("kvatlas")
    assert run("version", f"--metrics={METRICS}").stdout == f"client {own}\nserver {own}\n"
    both = run("version", f"--metrics={METRICS}", "--json")
    assert json.loads(both.stdout) == {"client": own, "server": own}
    alone = run("version", "--metrics=127.0.0.1:1")
    assert alone.returncode == 0
    assert alone.stdout.startswith(f"client {own}\nserver unknown: no metrics from 127.0.0.1:1")


def test_watching_a_real_service_begins_with_the_ranks_that_there_are(
    service: ServiceProcess,
) -> None:
    command = [*KVATLAS_COMMAND, "pods", "--watch", "--model=m", f"--server={service.admin}"]
    shown = on_terminal(command, signalled("changes follow"))
    assert shown.status == 0
    assert f"{POD} rank 0 m: exact" in shown.text


def test_explain_says_where_the_prefix_ends(service: ServiceProcess) -> None:
    tokens = ",".join(map(str, range(64)))
    flags = ["--model=m", f"--tokens={tokens}", f"--server={service.address}"]
    people = run("explain", *flags).stdout
    assert re.search(rf"{POD} +0 +2\.0 +2 +gpu=2 +32 +never_stored +exact", people)
    assert "first missing: block 2, tokens 32 to 47" in people
    answer = json_format.Parse(
        run("explain", *flags, "--json").stdout, explain_pb2.ExplainResponse()
    )
    assert answer.pods[0].ranks[0].first_missing.index == 2


CHANGES = [
    fleet_pb2.WatchPodsResponse(
        change=fleet_pb2.POD_CHANGE_LISTED,
        pod=POD,
        model="m",
        trust_state=trust_pb2.TRUST_STATE_EXACT,
    ),
    fleet_pb2.WatchPodsResponse(change=fleet_pb2.POD_CHANGE_LIST_COMPLETE),
    fleet_pb2.WatchPodsResponse(
        change=fleet_pb2.POD_CHANGE_TRUST_CHANGED,
        pod=POD,
        model="m",
        rank=3,
        trust_state=trust_pb2.TRUST_STATE_DEGRADED,
        trust_reason="frames_lost",
        skipped_changes=2,
    ),
]


class NaiveFleet(fleet_pb2_grpc.FleetServiceServicer):
    """Tells of a few changes, and then of nothing more."""

    def __init__(self, *, ends: bool) -> None:
        self._ends = ends

    def WatchPods(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
        assert request.model == "m"
        yield from CHANGES
        if self._ends:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the service is stopping")
        is_over = threading.Event()
        context.add_callback(is_over.set)
        is_over.wait(DEADLINE_SECONDS)


class NaiveExplain(explain_pb2_grpc.ExplainServiceServicer):
    """Answers with what it was asked."""

    def Explain(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
        asked = json_format.MessageToJson(request, indent=None)
        return explain_pb2.ExplainResponse(summary=asked, pods_left_out=7)


@contextmanager
def naive_server(*, ends: bool = True) -> Iterator[str]:
    """A server of both, and its address."""
    server = grpc.server(ThreadPoolExecutor(4))
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(NaiveFleet(ends=ends), server)
    explain_pb2_grpc.add_ExplainServiceServicer_to_server(NaiveExplain(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_watching_pods_prints_a_line_for_each_change_until_the_service_stops() -> None:
    with naive_server() as address:
        watched = run("pods", "--watch", "--model=m", f"--server={address}")
    assert watched.returncode == 1
    assert [line.split("  ", 1)[1] for line in watched.stdout.splitlines()] == [
        f"{POD} rank 0 m: exact",
        f"{POD} rank 3 m: is now degraded (frames_lost) (2 changes before this one are left out)",
    ]
    said = watched.stderr.splitlines()
    assert "these are all; changes follow" in said[0]
    assert "UNAVAILABLE: no answer" in said[1]


def test_watching_pods_as_json_prints_each_message_in_a_line() -> None:
    with naive_server() as address:
        watched = run("pods", "--watch", "--model=m", "--json", f"--server={address}")
    read = [
        json_format.Parse(line, fleet_pb2.WatchPodsResponse())
        for line in watched.stdout.splitlines()
    ]
    assert read == CHANGES


def test_watching_pods_ends_quietly_when_it_is_interrupted() -> None:
    with naive_server(ends=False) as address:
        command = [*KVATLAS_COMMAND, "pods", "--watch", "--model=m", f"--server={address}"]
        shown = on_terminal(command, signalled("is now degraded"))
    assert shown.status == 0
    assert "Traceback" not in shown.text


def test_explain_asks_what_score_would_ask() -> None:
    flags = ["--model=m", "--tokens=1,2", f"--pod={POD}", "--lora=l", "--salt=s", "--image=h@0+1"]
    request = scoring_pb2.ScoreRequest(
        model="m",
        prompt=scoring_pb2.Prompt(
            token_ids=scoring_pb2.TokenIds(ids=[1, 2]),
            multimodal_items=[scoring_pb2.MultimodalItem(hash="h", length=1)],
        ),
        pods=[POD],
        lora_name="l",
        cache_salt="s",
    )
    with naive_server() as address:
        asked = run("explain", *flags, "--json", f"--server={address}")
        people = run("explain", *flags, f"--server={address}")
    answer = json.loads(asked.stdout)
    found = json_format.Parse(answer["summary"], explain_pb2.ExplainRequest())
    assert found == explain_pb2.ExplainRequest(score=request)
    assert answer["pods_left_out"] == 7
    assert people.stdout.startswith('{"score":')


def test_bars_show_the_progress_of_recording_and_replaying_on_a_terminal_only(
    tmp_path: Path,
) -> None:
    file = tmp_path / "frames.jsonl"
    frame = {"kind": "frame", "at": 0.0, "endpoint": "e", "frames": ["00", "00" * 8, "00"]}
    file.write_text(f"{json.dumps(frame)}\n" * 50)
    running = ServiceProcess()
    command = [*KVATLAS_COMMAND, "replay", str(file), f"--connect={running.events}"]
    shown = on_terminal(command)
    assert shown.status == 0
    assert "50/50" in shown.text
    assert "replayed 50 frame(s)" in shown.text
    plain = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"kvatlas: replayed 50 frame\(s\) in \d+\.\d s\n", plain.stderr)
    assert plain.stdout == ""
    running.stop()
