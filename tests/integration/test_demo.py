"""`kvatlas demo`, by itself and into a running service."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest
from support.ports import free_port
from support.services.process import KVATLAS_COMMAND, ServiceProcess


def demo(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KVATLAS_COMMAND, "demo", *words], capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture
def service() -> ServiceProcess:
    return ServiceProcess()


def test_chats_follow_the_scores_of_the_service_that_is_fed(service: ServiceProcess) -> None:
    into = ("--into", service.events, "--server", service.address)
    shown = demo(*into, "--pods=2", "--turns=6", "--rate=20")
    assert shown.returncode == 0, shown.stderr
    served = re.findall(
        r"chat (\d): (\d+) tokens to (demo-\d:8000), which had (\d+) cached; promised were (\d+)",
        shown.stdout,
    )
    assert len(served) == 6 * 3
    assert {pod for _, _, pod, _, _ in served} == {"demo-1:8000", "demo-2:8000"}
    # At 20 requests a second every event is known before the chat's next turn.
    assert all(cached == promised for _, _, _, cached, promised in served[6:])
    assert all(int(cached) > 400 for _, _, _, cached, _ in served[6:])
    assert re.search(
        r"18 requests with \d+ tokens: \d+% were cached, \d+% were promised", shown.stdout
    )
    service.stop()


def test_an_endless_demo_ends_with_a_summary(service: ServiceProcess) -> None:
    words = ["--into", service.events, "--server", service.address, "--endless", "--rate=50"]
    command = [*KVATLAS_COMMAND, "demo", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "chat 3: 580" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(30) == 130
    assert "were promised" in rest
    service.stop()


def test_a_demo_without_a_service_says_what_is_missing(service: ServiceProcess) -> None:
    nobody = f"tcp://127.0.0.1:{free_port()}"
    shown = demo("--into", nobody, "--server", service.address, "--pods=1")
    assert shown.returncode == 1
    assert "kvatlas serve --bind" in shown.stderr
    shown = demo("--into", service.events, "--server", f"127.0.0.1:{free_port()}", "--pods=1")
    assert shown.returncode == 1
    assert "UNAVAILABLE" in shown.stderr or "DEADLINE_EXCEEDED" in shown.stderr
    shown = demo("--into", "nonsense")
    assert shown.returncode == 2
    assert "cannot connect to nonsense" in shown.stderr
    assert "such as tcp://" in shown.stderr
    service.stop()
