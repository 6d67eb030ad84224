"""The schedulers of `examples/` against a real service, with pods that answer completions."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.paths import ROOT
from support.ports import free_port
from support.services.one_pod import (
    MODEL,
    TOKENS,
    block_stored,
    frame,
    score,
    score_request,
    service_with_pod,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from support.services.running import RunningService

EXAMPLES = ROOT / "examples"
CACHED = 16  # tokens that a pod says it had
PYTHON = [sys.executable, "-P", str(EXAMPLES / "python" / "scheduler.py")]
PATIENT_MS = "30000"  # a busy machine takes longer than a scheduler would wait


class Pod(ThreadingHTTPServer):
    """Answers completions as a model server does, and keeps the prompts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Completions)
        self.prompts: list[list[int]] = []
        self.name = f"127.0.0.1:{self.server_address[1]}"


class _Completions(BaseHTTPRequestHandler):
    server: Pod

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.prompts.append(body["prompt"])
        usage = {"prompt_tokens_details": {"cached_tokens": CACHED}}
        answer = json.dumps({"model": body["model"], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def pods(count: int) -> Iterator[list[Pod]]:
    servers = [Pod() for _ in range(count)]
    threads = [threading.Thread(target=server.serve_forever, args=[0.01]) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield servers
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


@asynccontextmanager
async def service_that_knows(
    *pods: Pod, holder: Pod | None = None, **settings: Any
) -> AsyncIterator[RunningService]:
    """A service to which one pod has announced the blocks of TOKENS, and others some other one."""
    async with service_with_pod(models=[{"name": MODEL}], **settings) as (service, publisher):
        for pod in pods:
            stored = block_stored(TOKENS if pod is holder else [9] * 16)
            publisher.send(frame(0, stored, topic=f"kv@{pod.name}@{MODEL}"))
            await service.until_applied({(pod.name, 0): 0})
        yield service


async def run(command: list[str], prompts: list[list[int]]) -> tuple[str, str]:
    """What a scheduler prints, to both streams, for these prompts."""
    lines = "".join(f"{' '.join(map(str, prompt))}\n" for prompt in prompts)
    done = await asyncio.to_thread(
        subprocess.run, command, input=lines, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def python(server: str, pods: list[Pod]) -> list[str]:
    names = [f"--pod={pod.name}" for pod in pods]
    options = [f"--server={server}", f"--model={MODEL}", f"--score-ms={PATIENT_MS}"]
    return [*PYTHON, *options, *names]


async def test_the_python_scheduler_sends_a_prompt_to_its_holder_and_reports() -> None:
    with pods(3) as (first, holder, third):
        async with service_that_knows(first, holder, third, holder=holder) as service:
            command = python(service.application.addresses[0], [first, holder, third])
            out, err = await run(command, [TOKENS, TOKENS[:32], [5] * 20])
        sent = [json.loads(line) for line in out.splitlines()]
        assert err == ""
    assert [each["pod"] for each in sent[:2]] == [holder.name] * 2
    # All of 64 and of 32 tokens are held; an engine computes the last block again.
    assert [each["promised_tokens"] for each in sent] == [48, 16, 0]
    assert {each["cached_tokens"] for each in sent} == {CACHED}
    assert sorted(holder.prompts, key=len)[-2:] == [TOKENS[:32], TOKENS]
    assert [5] * 20 in first.prompts + holder.prompts + third.prompts


async def test_the_python_scheduler_records_where_it_sends() -> None:
    """A prompt that nobody holds: from now on its blocks are speculative for the pod."""
    prompt = [7] * 64
    with pods(2) as both:
        async with service_that_knows(*both, routing={"ttl_seconds": 60.0}) as service:
            out, _ = await run(python(service.application.addresses[0], both), [prompt])
            answer = await score(service, score_request(prompt))
    chosen = json.loads(out)["pod"]
    assert {each.pod: each.speculative_blocks for each in answer.pods} == {
        pod.name: 4 * (pod.name == chosen) for pod in both
    }


async def test_the_python_scheduler_takes_turns_without_a_service() -> None:
    with pods(2) as both:
        command = [*python(f"127.0.0.1:{free_port()}", both), "--score-ms=100"]
        out, err = await run(command, [[n] * 20 for n in range(4)])
    assert sorted(len(pod.prompts) for pod in both) == [2, 2]
    assert err.count("scheduled without scores: DEADLINE_EXCEEDED") == 4
    assert out.count('"promised_tokens": null') == 4


def _gopath() -> str | None:
    """Where Go finds gRPC without modules, as Debian's golang-google-grpc-dev installs it."""
    tools = ("go", "gofmt", "buf", "protoc-gen-go", "protoc-gen-go-grpc")
    path = f"{os.environ.get('GOPATH', '')}:/usr/share/gocode"
    has_grpc = any(Path(root, "src/google.golang.org/grpc").is_dir() for root in path.split(":"))
    return path if has_grpc and all(map(shutil.which, tools)) else None


GOPATH = _gopath()
if GOPATH is not None:  # not a skip: Go is nothing that the tests need

    @pytest.fixture(scope="module")
    def go_scheduler(tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The Go example as a program, with stubs generated as its documentation says."""
        work = tmp_path_factory.mktemp("go")
        template = EXAMPLES / "go" / "buf.gen.yaml"
        generate = ["buf", "generate", str(ROOT), "--template", str(template), "-o", str(work)]
        subprocess.run(generate, check=True, cwd=work)
        stubs = work / "src" / "github.com" / "kvatlas" / "kvatlas" / "go"
        shutil.copytree(work / "kvatlas", stubs)
        program = work / "src" / "example.com" / "scheduler"
        shutil.copytree(EXAMPLES / "go", program, ignore=shutil.ignore_patterns("kvatlas"))
        unformatted = subprocess.run(
            ["gofmt", "-l", "."], cwd=program, capture_output=True, check=True
        )
        assert unformatted.stdout == b""
        go = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{work}:{GOPATH}", "GOFLAGS": ""}
        for command in (["go", "vet", "."], ["go", "build", "-o", str(work / "scheduler"), "."]):
            subprocess.run(command, check=True, cwd=program, env=go)
        return work / "scheduler"

    async def test_the_go_scheduler_sends_a_prompt_to_its_holder_and_reports(
        go_scheduler: Path,
    ) -> None:
        with pods(2) as (other, holder):
            async with service_that_knows(other, holder, holder=holder) as service:
                server = service.application.addresses[0]
                names = f"{other.name},{holder.name}"
                options = ["-server", server, "-model", MODEL, "-pods", names]
                command = [str(go_scheduler), *options, "-score", f"{PATIENT_MS}ms"]
                out, err = await run(command, [TOKENS, TOKENS[:32]])
        assert out.split() == [holder.name] * 2
        assert holder.prompts == [TOKENS, TOKENS[:32]]
        assert f"cached: {CACHED} tokens; promised: 48" in err
        assert "not re" not in err

    async def test_the_go_scheduler_takes_turns_without_a_service(go_scheduler: Path) -> None:
        with pods(2) as both:
            names = ",".join(pod.name for pod in both)
            options = ["-server", f"127.0.0.1:{free_port()}", "-model", MODEL, "-pods", names]
            out, err = await run([str(go_scheduler), *options], [[n] * 20 for n in range(4)])
        assert out.split() == [pod.name for pod in both] * 2
        assert err.count("scheduled without scores") == 4
