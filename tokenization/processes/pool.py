"""The processes that render templates of strangers, started when the first such chat comes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import structlog

from tokenization.errors import (
    CallerGoneError,
    ChatError,
    TokenizersBusyError,
    UnsupportedChatError,
)

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from asyncio.subprocess import Process
    from collections.abc import Mapping

    from tokenization.chat import Caller, ChatOptions, ChatTemplates, RenderLimits

_CHILD = Path(__file__).with_name("child.py")
_START_SECONDS = 30.0
# A process ends itself after so many seconds of the processor's time. Where that fails we end it,
# by the clock, which runs faster on a busy machine.
_GRACE = 4.0
_GRACE_SECONDS = 2.0
_LONGEST_ESCAPE = 6  # bytes of JSON for a byte of text
_ENVIRONMENT = ("TZ",)  # of ours, what a process gets: the engine's time is local, too

_log = structlog.get_logger("kvatlas.tokenization")


@dataclass(frozen=True)
class ProcessLimits:
    """How many processes there are, and what each may use."""

    count: int = 2
    waiting: int = 64
    """Chats that may wait for a process."""
    memory_bytes: int = 256 * 1024**2
    """For a chat, besides what an idle process takes."""


class RenderProcesses:
    """Renders chats whose template is a stranger's. A process that fails is killed and replaced.

    Args:
        limits: of the processes.
        render: limits of a rendering.

    Attributes:
        waiting: chats that wait for a process.
        killed: processes that were ended, by the reason: seconds, memory, or died.
    """

    def __init__(self, limits: ProcessLimits, render: RenderLimits) -> None:
        self.waiting = 0
        self.killed: Counter[str] = Counter()
        self._limits = limits
        self._render = render
        self._idle: list[Process] = []
        self._free = asyncio.Semaphore(limits.count)
        self._renderings: set[asyncio.Task[dict[str, str]]] = set()

    async def close(self) -> None:
        """End all processes."""
        for rendering in self._renderings:
            rendering.cancel()
        await asyncio.gather(*self._renderings, return_exceptions=True)
        while self._idle:
            await _end(self._idle.pop())

    async def render(
        self,
        request: Mapping[str, Any],
        templates: ChatTemplates,
        options: ChatOptions,
        caller: Caller,
    ) -> str:
        """Return the text of a chat.

        Raises:
            ChatError: the chat or its template is at fault, or beyond a limit.
            UnsupportedChatError: a message has a part that is not text.
            TokenizersBusyError: too many chats wait for a process.
            CallerGoneError: the deadline passes first.
        """
        if self._free.locked() and self.waiting >= self._limits.waiting:
            raise TokenizersBusyError(self.waiting, 0.0)
        self.waiting += 1
        try:
            async with asyncio.timeout(caller.seconds_left()):
                await self._free.acquire()
        except TimeoutError:
            raise CallerGoneError from None
        finally:
            self.waiting -= 1
        left = caller.seconds_left()
        seconds = (
            self._render.seconds if left is None else max(0.0, min(self._render.seconds, left))
        )
        limits = replace(self._render, seconds=seconds)
        rendering = asyncio.create_task(
            self._rendered(request, templates, options, limits), name="render in a process"
        )
        self._renderings.add(rendering)
        rendering.add_done_callback(self._on_rendered)
        # A caller that goes does not cost the process, which soon ends the rendering by itself.
        answer = await asyncio.shield(rendering)
        caller.check()
        return _text(answer)

    def _on_rendered(self, rendering: asyncio.Task[dict[str, str]]) -> None:
        self._renderings.discard(rendering)
        self._free.release()
        if not rendering.cancelled():
            rendering.exception()  # whoever waits for it gets it; perhaps nobody does

    async def _rendered(
        self,
        request: Mapping[str, Any],
        templates: ChatTemplates,
        options: ChatOptions,
        limits: RenderLimits,
    ) -> dict[str, str]:
        """Return the answer of a process, which is then idle, or has been ended."""
        question = _question(request, templates, options, limits)
        process = await self._process()
        reason = "died"
        try:
            async with asyncio.timeout(_GRACE * limits.seconds + _GRACE_SECONDS):
                answer = await _ask(process, question)
            reason = "memory" if answer.get("error") == "memory" else ""
        except TimeoutError:
            reason = "seconds"
        except (OSError, ValueError):
            # It is ending. To kill it now could hide from asyncio why.
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_SECONDS):
                    await process.wait()
        finally:
            if reason:
                await _end(process)
                reason = "seconds" if process.returncode == -signal.SIGPROF else reason
                self.killed[reason] += 1
                _log.warning("render_process_ended", reason=reason)
        if not reason:
            self._idle.append(process)
            return answer
        memory = self._limits.memory_bytes // 1024**2
        detail = {
            "seconds": f"the template took longer than {limits.seconds:g} s",
            "memory": f"the template needs more than {memory} MiB",
        }
        return {
            "error": "refused",
            "detail": detail.get(reason, f"its process needed more than {memory} MiB, or failed"),
        }

    async def _process(self) -> Process:
        """Return a process that waits for a chat."""
        while self._idle:
            process = self._idle.pop()
            if not _has_ended(process):
                return process
            self.killed["died"] += 1
        return await _start(self._limits.memory_bytes, self._render.text_bytes)


def _question(
    request: Mapping[str, Any],
    templates: ChatTemplates,
    options: ChatOptions,
    limits: RenderLimits,
) -> bytes:
    question = {
        "request": dict(request),
        "templates": asdict(templates),
        "options": asdict(options),
        "limits": asdict(limits),
    }
    try:
        line = json.dumps(question, ensure_ascii=False, default=str)
    except (ValueError, RecursionError) as error:
        raise ChatError(f"chat_template: the request is no JSON: {type(error).__name__}") from error
    return line.encode(errors="surrogatepass") + b"\n"


def _text(answer: Mapping[str, str]) -> str:
    if "text" in answer:
        return answer["text"]
    detail = f"chat_template: {answer['detail']}"
    if answer["error"] == "unsupported":
        raise UnsupportedChatError(detail)
    raise ChatError(detail)


# One process


def _has_ended(process: Process) -> bool:
    """Whether a process has ended, also if the event loop was not told yet."""
    if process.returncode is not None:
        return True
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    try:
        return os.waitid(os.P_PID, process.pid, options) is not None
    except ChildProcessError:
        return True


async def _start(memory_bytes: int, text_bytes: int) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(_CHILD),
        str(memory_bytes),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a traceback may quote a prompt
        env={name: value for name, value in os.environ.items() if name in _ENVIRONMENT},
        limit=_LONGEST_ESCAPE * text_bytes + 4096,
    )
    try:
        async with asyncio.timeout(_START_SECONDS):
            await _read(process)
    except BaseException:
        await _end(process)
        raise
    return process


async def _ask(process: Process, question: bytes) -> dict[str, str]:
    pipe = cast("StreamWriter", process.stdin)
    pipe.write(question)
    await pipe.drain()
    return await _read(process)


async def _read(process: Process) -> dict[str, str]:
    """Return a line of JSON.

    Raises OSError if the process has died, ValueError if the line is longer than it may be.
    """
    line = await cast("StreamReader", process.stdout).readline()
    if not line.endswith(b"\n"):
        raise ConnectionResetError
    answer: dict[str, str] = json.loads(line.decode(errors="surrogatepass"))
    return answer


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.communicate()  # closes the pipes, too
