"""Templates that requests bring: rendered in processes that can be killed, where trusted."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.deadlines import DEADLINE_SECONDS
from support.paths import ROOT

from tokenization import ChatError, ChatOptions, RenderLimits, TokenizersBusyError
from tokenization.chat import Caller, ChatTemplates
from tokenization.errors import CallerGoneError, UnsupportedChatError
from tokenization.processes import ProcessLimits, RenderProcesses

ENDLESS = (
    "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(200) %}"
    "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}"
)
"""One step, a comparison of lists, that no check can interrupt."""
BUSY = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
GREEDY = (
    "{% set n = namespace(l=[]) %}"
    "{% for i in range(9999) %}{% set n.l = [n.l, range(99999) | list] %}{% endfor %}"
)
TEMPLATES = ChatTemplates({"default": "default", "named": "named"}, {"eos_token": "</s>"})
OPTIONS = ChatOptions(trust_request_template=True, arguments={"mood": "good"})


def chat(template: str, content: Any = "hi") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "chat_template": template}


class Processes:
    def __init__(self, seconds: float = 60.0, text_bytes: int = 2**20, **limits: int) -> None:
        self.all = RenderProcesses(ProcessLimits(**limits), RenderLimits(seconds, text_bytes))

    async def render(self, template: str, content: Any = "hi", **caller: Any) -> str:
        return await self.all.render(chat(template, content), TEMPLATES, OPTIONS, Caller(**caller))


@pytest.fixture
async def processes() -> AsyncIterator[Any]:
    made: list[Processes] = []

    def make(**limits: Any) -> Processes:
        made.append(Processes(**limits))
        return made[-1]

    yield make
    for each in made:
        await each.all.close()


def children() -> set[int]:
    """Process ids of our processes that render."""
    found = {
        int(process)
        for listed in Path("/proc/self/task").glob("*/children")
        for process in listed.read_text().split()
    }
    return {
        process for process in found if b"child.py" in Path(f"/proc/{process}/cmdline").read_bytes()
    }


async def test_a_chat_is_rendered_by_its_own_template_as_by_the_models(processes: Any) -> None:
    some = processes()
    template = "{{ messages[0].content }}{{ eos_token }}{{ mood }}{{ messages | tojson }}"
    text = '☃ \ud800</s>good[{"role": "user", "content": "☃ \ud800"}]'
    assert await some.render(template, "☃ \ud800") == text
    assert await some.render("{{ strftime_now('%Y') | int > 2000 }}") == "True"
    assert len(children()) == 1


async def test_no_process_runs_before_a_template_is_brought(processes: Any) -> None:
    before = children()
    processes()
    assert children() == before


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ 'a' * 4000000000 }}", "longer than 1048576 bytes"),
        ("{{ 9 ** 9999999 }}", "integer that is too large"),
        ("{% for i in range(99999) %}{{ 'a' * 99 }}{% endfor %}", "longer than 1048576 bytes"),
        ("{% for %}", "line 1"),
        ("{{ raise_exception('no') }}", "fails: no"),
        ("{{ messages.__class__() }}", "unsafe"),
    ],
)
async def test_the_limits_of_all_templates_hold_for_foreign_ones(
    processes: Any, template: str, words: str
) -> None:
    some = processes()
    with pytest.raises(ChatError, match=f"^chat_template: .*{words}"):
        await some.render(template)
    assert await some.render("still there") == "still there"
    assert not some.all.killed


async def test_a_template_that_takes_too_long_is_ended_and_its_process_replaced(
    processes: Any,
) -> None:
    some = processes(seconds=0.5, text_bytes=2**30, count=1)
    with pytest.raises(ChatError, match=r"took longer than 0\.5 s"):
        await some.render(BUSY)
    assert not some.all.killed  # it has ended itself
    with pytest.raises(ChatError, match=r"took longer than 0\.5 s"):
        await some.render(ENDLESS)
    assert some.all.killed == {"seconds": 1}
    assert await some.render("ok") == "ok"


async def test_a_template_that_takes_too_much_memory_is_ended_and_its_process_replaced(
    processes: Any,
) -> None:
    some = processes(memory_bytes=64 * 2**20, count=1)
    with pytest.raises(ChatError, match="more than 64 MiB"):
        await some.render(GREEDY)
    assert sum(some.all.killed.values()) == 1
    assert await some.render("ok") == "ok"


async def test_a_process_that_has_died_is_replaced(processes: Any) -> None:
    some = processes()
    before = children()
    await some.render("a")
    (child,) = children() - before
    os.kill(child, signal.SIGKILL)
    await asyncio.to_thread(wait_for_the_end, child)
    assert await some.render("b") == "b"
    assert len(children() - before) == 1


async def test_a_caller_that_goes_does_not_cost_a_process(processes: Any) -> None:
    some = processes(seconds=0.2, count=1)
    await some.render("a")
    before = children()
    call = asyncio.create_task(some.render(BUSY))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await some.render("b") == "b"
    assert children() == before
    assert not some.all.killed


async def test_a_chat_waits_for_a_process_no_longer_than_its_deadline(processes: Any) -> None:
    some = processes(count=1, waiting=1, seconds=30.0)
    loop = asyncio.get_running_loop()
    busy = asyncio.create_task(some.render(BUSY))
    await asyncio.sleep(0)
    waits = asyncio.create_task(some.render("a", deadline=loop.time() + 0.2))
    await asyncio.sleep(0)
    with pytest.raises(TokenizersBusyError):
        await some.render("one too many")
    with pytest.raises(CallerGoneError):
        await waits
    busy.cancel()


async def test_a_template_is_not_told_where_it_runs_and_cannot_open_anything(
    processes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a template could do that has left the sandbox: the process itself is limited."""
    monkeypatch.setenv("KVATLAS_STORE__PASSWORD", "secret")
    some = processes()
    before = children()
    await some.render("a")
    (child,) = children() - before
    entry = Path("/proc", str(child))
    assert b"secret" not in (entry / "environ").read_bytes()
    limits = (entry / "limits").read_text()
    for what, most in (("open files", "3"), ("file size", "0"), ("processes", "0")):
        (line,) = (line for line in limits.splitlines() if f"Max {what}" in line)
        assert line.split(f"Max {what}")[1].split()[0] == most
    assert sorted(file.name for file in (entry / "fd").iterdir()) == ["0", "1", "2"]


PARENT = """
import asyncio, os
from tokenization.chat import Caller, ChatOptions, ChatTemplates, RenderLimits
from tokenization.processes import ProcessLimits, RenderProcesses

async def main():
    some = RenderProcesses(ProcessLimits(), RenderLimits(seconds=1.0))
    options, templates = ChatOptions(trust_request_template=True), ChatTemplates({}, {})
    body = {"messages": [{"role": "user", "content": "a"}], "chat_template": "a"}
    await some.render(body, templates, options, Caller())
    os.system(f"cat /proc/{os.getpid()}/task/*/children")
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


async def test_a_process_ends_when_the_service_is_killed() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdout=subprocess.PIPE, cwd=ROOT
    )
    out, _ = await parent.communicate()
    child = int(out.split()[0])
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.to_thread(wait_for_the_end, child)


def wait_for_the_end(process: int) -> None:
    """Wait for a process that is not our child."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return
    select.select([handle], [], [])
    os.close(handle)


async def test_an_image_in_a_chat_with_a_template_is_unsupported_as_in_any_other(
    processes: Any,
) -> None:
    image = [{"type": "image_url", "image_url": {}}]
    with pytest.raises(UnsupportedChatError):
        await processes().render("a", image)
