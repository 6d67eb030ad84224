"""The `kvatlas` command, as a process."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from kvatlas.v1 import fleet_pb2, scoring_pb2, tokenization_pb2
from support.models.trained import write_tokenizer
from support.services.process import KVATLAS_COMMAND, ServiceProcess
from support.services.published import POD, service_with_blocks

from service.cli.main import main

Kvatlas = Callable[..., subprocess.CompletedProcess[str]]


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command as a process."""
    return subprocess.run(
        [*KVATLAS_COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def kvatlas(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Kvatlas:
    """Run a command in this process, which is much faster than `run` and does the same."""

    def in_process(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        try:
            status = main(arguments)
        except SystemExit as end:
            status = 0 if end.code is None else int(end.code)
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return in_process


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A running service with a tokenizer, to which a pod has published two blocks."""
    with service_with_blocks(tmp_path_factory.mktemp("model")) as running:
        yield running


def test_client_commands_print_tables_for_people_and_json_for_programs(
    service: ServiceProcess,
    kvatlas: Kvatlas,
) -> None:
    tokens = ",".join(map(str, range(40)))
    server = f"--server={service.address}"
    assert run("health", server).stdout == "SERVING\n"
    people = kvatlas(
        "score", server, "--model=m", "--tokens", tokens, "--pod", POD, "--pod=other:1"
    )
    assert people.stderr == ""
    assert "40 tokens, 2 full blocks of 16 tokens" in people.stdout
    assert re.search(rf"{POD}\s+2\.0\s+2\s+32\s+gpu=2", people.stdout)
    assert "unknown pods: other:1" in people.stdout
    program = run("score", server, "--model=m", "--tokens=-", "--json", stdin=tokens)
    answer = json.loads(program.stdout)
    assert answer["total_blocks"] == 2
    assert answer["pods"][0]["matched_blocks_by_tier"] == {"gpu": 2}
    image = kvatlas("score", server, "--model=m", "--tokens", tokens, "--image=abc@3+4", "--json")
    assert json.loads(image.stdout)["pods"][0]["matched_blocks"] == 0
    admin = f"--server={service.admin}"
    pods = kvatlas("pods", admin)
    assert re.search(rf"{POD}\s+0\s+m\s+exact\s+gpu=2\s+\d+\.\ds ago\s+0\s+-\s+-", pods.stdout)
    assert json.loads(kvatlas("pods", admin, "--json").stdout)["pods"][0]["pod"] == POD
    ids = kvatlas("tokenize", server, "--model=m", "--text=pods and blocks").stdout.split()
    assert ids[0] == "0"
    bare = kvatlas(
        "tokenize", server, "--model=m", "--text=-", "--no-special-tokens", stdin="pods and blocks"
    )
    assert bare.stdout.split() == ids[1:]


def test_every_form_of_a_prompt_is_scored(
    service: ServiceProcess, kvatlas: Kvatlas, tmp_path: Path
) -> None:
    ids = list(range(40))
    packed, body = tmp_path / "ids", tmp_path / "body.json"
    packed.write_bytes(b"".join(token.to_bytes(4, "little") for token in ids))
    body.write_text(json.dumps({"prompt": ids}))
    server = f"--server={service.address}"
    for flags in (
        [f"--packed={packed}"],
        [f"--completion={body}"],
        [f"--packed={packed}", "--only-holders", "--max-pods=1", "--want-handle"],
        [f"--packed={packed}", "--by-rank", "--tier-weight=gpu=0.5", "--budget-ms=5000"],
        [f"--packed={packed}", f"--rank={POD}/0"],
    ):
        answer = json.loads(kvatlas("score", server, "--model=m", "--json", *flags).stdout)
        assert (answer["total_tokens"], answer["pods"][0]["matched_blocks"]) == (40, 2)
        assert answer["pods"][0]["score"] == (1.0 if "--by-rank" in flags else 2.0)
        assert bool(answer["handle"]) == ("--want-handle" in flags)
    for flags, words in (
        (["--tokens=1", "--text=a"], "--text and --tokens cannot be given together"),
        ([], "one of --text, --chat, --messages, --completion, --tokens, --packed is needed"),
        ([f"--packed={packed}", "--tier-weight=gpu"], "--tier-weight must be TIER=WEIGHT"),
        ([f"--packed={packed}", "--rank=pod"], "--rank must be POD/RANK"),
        ([f"--packed={body}"], "--packed must be whole 32-bit integers, not "),
        ([f"--packed={packed}", "--max-pods=4294967296"], "is more than 4294967295"),
        ([f"--chat={tmp_path}/none"], "No such file"),
    ):
        refused = kvatlas("score", server, "--model=m", *flags)
        assert refused.returncode == 2
        assert words in refused.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score", "--model=m", "--tokens=1,2"], scoring_pb2.ScoreResponse),
        (["tokenize", "--model=m", "--text=a"], tokenization_pb2.TokenizeResponse),
        (["pods"], fleet_pb2.ListPodsResponse),
        (["pods", "forget", "nobody"], None),
        (["health"], health_pb2.HealthCheckResponse),
    ],
)
def test_json_is_the_protobuf_message_with_the_names_of_the_proto(
    service: ServiceProcess, kvatlas: Kvatlas, words: list[str], message: type[Message] | None
) -> None:
    server = service.admin if words[0] == "pods" else service.address
    done = kvatlas(*words, "--json", f"--server={server}")
    if message is None:
        assert (done.returncode, done.stdout) == (1, "")
        return
    shown = json.loads(done.stdout)
    parsed = json_format.ParseDict(shown, message())
    names = {field.name for field in parsed.DESCRIPTOR.fields if not field.has_presence}
    assert names <= set(shown) <= {field.name for field in parsed.DESCRIPTOR.fields}


def test_a_foreign_client_needs_no_proto_files(service: ServiceProcess) -> None:
    """`buf curl` is grpcurl's kin: a Go client that asks the server's reflection."""
    buf = str(Path(sys.executable).parent / "buf")
    call = [buf, "curl", "--protocol=grpc", "--http2-prior-knowledge"]
    request = {"model": "m", "prompt": {"token_ids": {"ids": list(range(32))}}}
    url = f"http://{service.address}/kvatlas.v1.ScoringService/Score"
    done = subprocess.run(
        [*call, "-d", json.dumps(request), url], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["pods"][0]["matchedBlocks"] == 2


def test_client_commands_say_what_is_wrong(service: ServiceProcess, kvatlas: Kvatlas) -> None:
    server = f"--server={service.address}"
    unknown = run("score", server, "--model=nobody", "--tokens=1")
    assert unknown.returncode == 1
    assert "NOT_FOUND: no pod serves model 'nobody'; known models: m" in unknown.stderr
    assert kvatlas("score", server, "--model=m", "--tokens=one").returncode == 2
    assert kvatlas("score", server, "--model=m", "--tokens=1", "--image=x").returncode == 2
    assert kvatlas("health", "--server=127.0.0.1:1").returncode == 1
    absent = kvatlas("pods", "--server=127.0.0.1:1", "--timeout=2")
    assert absent.returncode == 1
    assert "is `kvatlas serve` running?" in absent.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_service_in_order(number: signal.Signals) -> None:
    status, rest = ServiceProcess().stop(number)
    assert status == 0
    events = [json.loads(line)["event"] for line in rest.splitlines()]
    assert events[-2:] == ["stopping", "stopped"]


def test_kvatlas_check_validates_without_starting(tmp_path: Path, kvatlas: Kvatlas) -> None:
    good = run("check", "--bind=tcp://*:5557", "--block-size=32")
    assert good.returncode == 0
    assert "block size 32" in good.stdout
    bad = kvatlas("check", "--block-size=none", "--bind=nonsense", "--index-limit=3")
    assert bad.returncode == 2
    assert len(bad.stderr.splitlines()) == 4
    assert "index.block_size" in bad.stderr
    assert run("serve", "--config", str(tmp_path / "missing.toml")).returncode == 2
    assert "without a source" in kvatlas("check").stderr


def test_a_start_that_fails_says_why() -> None:
    bad = run("serve", "--bind=tcp://no.such.interface:5557", "--listen=127.0.0.1:0")
    assert bad.returncode == 1
    assert "cannot start: cannot bind tcp://no.such.interface:5557" in bad.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--pods", "0"], "'--pods': '0' is not a whole number from 1"),
        (["demo", "--turns", "-1"], "'--turns': '-1' is not a whole number from 1"),
        (["demo", "--turns", "some"], "'--turns': 'some' is not a whole number from 1"),
        (["record", "--frames", "-2"], "'--frames': '-2' is not a whole number from 1"),
        (["record", "--seconds", "nan"], "'--seconds': 'nan' is not a number above 0"),
        (["pods", "--timeout", "0"], "'--timeout': '0' is not a number above 0"),
        (["replay", "f", "--connect", "e", "--speed=-1"], "'--speed': '-1' is not a number from 0"),
    ],
)
def test_a_number_beyond_its_bounds_is_refused(
    kvatlas: Kvatlas, arguments: list[str], words: str
) -> None:
    refused = kvatlas(*arguments)
    assert refused.returncode == 2
    assert words in refused.stderr


def test_check_and_serve_refuse_the_same(
    tmp_path: Path, kvatlas: Kvatlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVATLAS_INDX__LIMIT", "1GiB")
    file = tmp_path / "kvatlas.toml"
    file.write_text(
        f'''
        [metrics]
        listen = "0.0.0.0:50051"
        [snapshot]
        path = "{tmp_path}/none/snapshot"
        [tokenization]
        directories = ["{tmp_path}/none"]
        [[models]]
        name = "m"
        tokenizer = "{tmp_path}/none"
        '''
    )
    for command in ("check", "serve"):
        refused = kvatlas(command, "--config", str(file))
        assert refused.returncode == 2
        for words in ("snapshot.path", "directories.0", "models.0.tokenizer", "KVATLAS_INDX__"):
            assert words in refused.stderr


def test_check_loads_tokenizers_and_says_what_is_ignored(tmp_path: Path, kvatlas: Kvatlas) -> None:
    file, tokenizer = tmp_path / "kvatlas.toml", tmp_path / "tokenizer.json"
    file.write_text(
        f'[[models]]\nname = "m"\ntokenizer = "{tmp_path}"\n'
        "[store]\nlease_seconds = 1\n[snapshot]\noldest_seconds = 1\n"
        '[admin]\nlisten = ["0.0.0.0:1"]\n'
    )
    tokenizer.write_text("{}")
    broken = kvatlas("check", "--config", str(file))
    assert broken.returncode == 2
    assert "model 'm'" in broken.stderr
    write_tokenizer(tmp_path)
    ignored = kvatlas("check", "--config", str(file))
    assert ignored.returncode == 0
    for words in ("[store] is ignored", "[snapshot] is ignored", "admin.listen is reached by"):
        assert words in ignored.stderr


def test_the_help_of_every_command_shows_its_usage(kvatlas: Kvatlas) -> None:
    assert "kvatlas demo" in run("--help").stdout
    for command in ("serve", "check", "score", "tokenize", "pods", "demo"):
        page = kvatlas(command, "--help")
        assert page.returncode == 0
        assert "Usage: kvatlas " + command in page.stdout
    assert "examples:" in kvatlas("serve", "--help").stdout
    assert "--limits.prompts" not in kvatlas("serve", "--help").stdout
    for words in (["serve"], ["check"], ["config", "show"]):
        assert re.search(
            r"--limits.prompts VALUE +prompts of a", kvatlas(*words, "--help-all").stdout
        )
    for action in ("forget", "resync"):
        assert f"Usage: kvatlas pods {action}" in kvatlas("pods", action, "--help").stdout


def test_the_demo_shows_the_main_job() -> None:
    shown = run("demo", "--pods=2", "--turns=2")
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"10\.0\.0\.1:8000\s+3\d\.0\s+3\d\s+\d+\s+gpu=3\d", shown.stdout)
    assert "a prompt that no pod has seen" in shown.stdout
    assert "kvatlas pods:" in shown.stdout
