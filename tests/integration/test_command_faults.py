"""What can go wrong around a command is one clear line, never a traceback."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import Authority
from support.deadlines import DEADLINE_SECONDS
from support.ports import free_port
from support.services.process import KVATLAS_COMMAND, ServiceProcess
from support.services.published import service_with_blocks
from support.terminal import on_terminal, signalled


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with service_with_blocks(tmp_path_factory.mktemp("model")) as running:
        yield running


@pytest.fixture(autouse=True)
def _addresses(service: ServiceProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVATLAS_SERVER", service.address)
    monkeypatch.setenv("KVATLAS_ADMIN_SERVER", service.admin)


def shell(line: str, stdin: bytes = b"") -> tuple[int, list[str]]:
    """Run a line in bash, where `kvatlas` is the command: its status, and lines of its errors."""
    command = " ".join(f"'{word}'" for word in KVATLAS_COMMAND)
    done = subprocess.run(
        ["bash", "-c", f'kvatlas() {{ {command} "$@"; }}; {line}'],
        input=stdin,
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    return done.returncode, done.stderr.decode().splitlines()


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("kvatlas config show | head -0; exit ${PIPESTATUS[0]}", 1, None),
        ("kvatlas pods >/dev/full", 1, "No space left on device"),
        ("kvatlas pods --json >&-", 0, None),
        ("kvatlas health >&-", 0, None),
        ("kvatlas score --model m --text - <&-", 2, "standard input is closed"),
        ("kvatlas score --model m --packed - <&-", 2, "standard input is closed"),
        (r"kvatlas score --model m --text $'\xff'", 2, "'--text': '\\udcff' is not valid UTF-8"),
        (r"kvatlas score --model $'\xff' --tokens 1", 2, "'--model': '\\udcff' is not valid"),
        (r"kvatlas pods --server $'\xff:1'", 2, "'\\udcff:1' is not valid UTF-8"),
        (r"kvatlas pods forget $'\xff'", 2, "'POD': '\\udcff' is not valid UTF-8"),
        (r"kvatlas score --model m --chat $'\xff'", 2, "cannot read \\udcff: No such file"),
        (r"kvatlas --$'\xff'", 2, "No such option"),
        ("kvatlas nonsense", 2, "No such command 'nonsense'"),
        ("kvatlas score --model m --chat /", 2, "cannot read /: Is a directory"),
        ("kvatlas pods --token-file /no/such", 2, "/no/such: No such file"),
        ("kvatlas pods --config /no/such", 2, "/no/such: cannot be read: No such file"),
        ("kvatlas pods --certificate-file /dev/null", 2, "need each other"),
        ("kvatlas pods --ca-file /dev/null", 2, "/dev/null contains no certificate"),
        ("kvatlas pods --ca-file /", 2, "/: "),
        ("kvatlas score --server $KVATLAS_ADMIN_SERVER --model m --tokens 1", 1, "UNIMPLEMENTED"),
        ("kvatlas replay /no/such --connect tcp://127.0.0.1:1", 1, "/no/such: No such file"),
        ("kvatlas replay /dev/null --connect nonsense", 1, "cannot connect to nonsense"),
        ("kvatlas record --output /no/such/file", 1, "/no/such/file: No such file"),
        ("kvatlas record --frames -2", 2, "'--frames': '-2' is not a whole number from 1"),
        ("kvatlas demo --pods 0", 2, "'--pods': '0' is not a whole number from 1"),
        ("kvatlas demo --turns -1", 2, "'--turns': '-1' is not a whole number from 1"),
    ],
)
def test_a_fault_is_one_line_and_a_status(line: str, status: int, words: str | None) -> None:
    found, lines = shell(line)
    assert found == status, lines
    if words is None:
        assert lines == []
    else:
        assert len(lines) == 1
        assert lines[0].startswith("kvatlas: ")
        assert words in lines[0]


def test_bytes_on_standard_input_that_are_no_text_are_a_fault_in_any_locale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for locale in ("C", "C.UTF-8"):
        monkeypatch.setenv("LC_ALL", locale)
        status, lines = shell("kvatlas score --model m --text -", b"a\xff")
        assert status == 2
        assert lines == ["kvatlas: standard input is not UTF-8: invalid start byte at byte 1"]


def test_tls_on_one_side_only_is_said_to_be_that(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    other = Authority(tmp_path, "other")
    chain, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    authority.issue(chain, key)
    status, lines = shell(f"kvatlas score --model m --tokens 1 --ca-file {authority.file}")
    assert status == 1
    assert "see --tls and --ca-file" in lines[0]
    secure = ServiceProcess(f"--grpc.certificate-file={chain}", f"--grpc.key-file={key}")
    server = secure.address.replace("127.0.0.1", "localhost")
    status, lines = shell(f"kvatlas health --server {server} --ca-file {authority.file}")
    assert status == 0
    status, lines = shell(f"kvatlas pods --server {server} --ca-file {other.file}")
    assert status == 1
    assert "see --tls and --ca-file" in lines[0]
    status, lines = shell(f"kvatlas pods --server {server} --timeout 2")
    assert (status, len(lines)) == (1, 1)
    secure.stop()


def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        for words in ("pods", "pods --watch", "health", "top --once", "version"):
            flag = "--metrics" if words == "version" else "--server"
            started = time.monotonic()
            status, lines = shell(f"kvatlas {words} {flag} {address} --timeout 0.5")
            assert time.monotonic() - started < DEADLINE_SECONDS / 2
            assert (status, len(lines)) == ((0, 0) if words == "version" else (1, 1))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.0, 0.03, 0.1, 0.3, 1.0])
def test_a_demo_that_is_interrupted_early_ends_without_a_word(number: int, delay: float) -> None:
    process = subprocess.Popen(
        [*KVATLAS_COMMAND, "demo", "--turns=100000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not catches(process.pid, signal.SIGTERM):  # until then Python runs no line of ours
        assert time.monotonic() < deadline
    time.sleep(delay)  # any moment of its first second will do
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
    assert "Traceback" not in errors
    assert process.returncode == 128 + number


def catches(process: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    status = Path(f"/proc/{process}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_what_shows_pods_gives_the_terminal_back_when_it_is_told_to_end() -> None:
    for number, status in ((signal.SIGINT, 0), (signal.SIGTERM, 143)):
        command = [*KVATLAS_COMMAND, "top", "--interval=0.1"]
        shown = on_terminal(command, signalled("POD", number))
        assert shown.status == status
        assert "Traceback" not in shown.text
        assert shown.text.index("\x1b[?1049h") < shown.text.rindex("\x1b[?1049l")
        assert shown.text.rindex("\x1b[?25l") < shown.text.rindex("\x1b[?25h")


def test_a_recording_that_is_told_to_end_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "frames.jsonl.gz"
    command = [*KVATLAS_COMMAND, "record", f"--output={file}"]
    shown = on_terminal(command, signalled("press Ctrl-C", signal.SIGTERM))
    assert shown.status == 143
    subprocess.run(["gzip", "--test", str(file)], check=True)
    free = free_port()
    status, lines = shell(f"kvatlas replay {file} --connect tcp://127.0.0.1:{free} --timeout 0.2")
    assert status == 1
    assert "no subscriber" in lines[0]
